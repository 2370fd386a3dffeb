"""Agreement of the labels of two networks."""

import pytest
import torch

from helpers import make_batch, make_paa
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.modeling.distillation import CoLAD
from studies.label_agreement import agreement, mean_agreement

BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]]])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([0, 1, -1, 2], [0, 1, -1, 2], 1.0),
        ([0, 1, -1, 2], [0, -1, -1, 1], 0.4),  # one of three and two: an object is another
        ([0, -1], [-1, 0], 0.0),
        ([-1, -1], [-1, -1], 0.0),
    ],
)
def test_agreement_is_the_f1_score_of_the_positives(one, other, expected):
    found = agreement(torch.tensor([one]), torch.tensor([other]))
    assert found.item() == pytest.approx(expected)


def test_labels_agree_with_those_of_the_same_network():
    model = CoLAD(student=make_paa(0), teacher=make_paa(1), switch=RoleSwitch(indicator=StdMean()))
    both, student, second, chosen = mean_agreement(model, make_paa(0), [BATCH, BATCH]).tolist()
    assert student == 1 and both == pytest.approx(second) and both < 1
    assert chosen in (student, pytest.approx(second)), "one decision for the batch"
    model.roles.own_labels = True
    assert mean_agreement(model, make_paa(0), [BATCH])[3] == 1, "the student's own"
