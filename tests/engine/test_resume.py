"""What a resumed training has to share with its run; more is in tests/faults/checkpoint.py."""

import pytest

from helpers import make_paa
from lad.engine.resume import check_weights


def test_other_anchors_are_another_model():
    model, weights = make_paa(0), make_paa(1).state_dict()
    check_weights(model, weights, "model_0000009.pth")
    (key,) = (key for key in weights if key.endswith("anchor_layout"))
    weights[key] = 2 * weights[key]
    message = "--resume: model_0000009.pth is of another model: it was trained with other anchors"
    with pytest.raises(ValueError, match=message):
        check_weights(model, weights, "model_0000009.pth")
    del weights[key]  # a checkpoint from before the layout was saved
    check_weights(model, weights, "model_0000009.pth")
