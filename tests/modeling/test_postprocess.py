import math

import pytest
import torch

from helpers import make_anchors
from lad.modeling.postprocess import PostProcessor, vote
from lad.ops.coders import DeltaCoder
from lad.structures import DensePredictions

ANCHORS = make_anchors()


def predictions_for(detections: dict[int, tuple[int, float, list[float]]], quality=None):
    """Predictions of one image: anchor -> (class, probability, box)."""
    scores = torch.full((1, len(ANCHORS.boxes), 3), -20.0)
    deltas = torch.zeros(1, len(ANCHORS.boxes), 4)
    for anchor, (class_index, probability, box) in detections.items():
        scores[0, anchor, class_index] = math.log(probability / (1 - probability))
        deltas[0, anchor] = DeltaCoder().encode(ANCHORS.boxes[anchor], torch.tensor(box))
    return DensePredictions(scores, "sigmoid", deltas, quality, ANCHORS, DeltaCoder())


def detect(predictions, **options):
    return PostProcessor(**options)(predictions, [(96, 128)])[0]


BOX, NEAR = [20.0, 20.0, 60.0, 60.0], [20.0, 20.0, 60.0, 64.0]


def test_nms_is_per_class_and_keeps_the_best():
    found = detect(
        predictions_for({5: (0, 0.8, BOX), 6: (0, 0.6, NEAR), 7: (1, 0.5, NEAR)}),
        score_voting=False,
    )
    assert found.pred_classes.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.8, 0.5])
    torch.testing.assert_close(
        found.pred_boxes.tensor, torch.tensor([BOX, NEAR]), atol=1e-3, rtol=0
    )


def test_voting_by_hand():
    found = detect(
        predictions_for({5: (0, 0.8, BOX), 6: (0, 0.6, NEAR), 7: (1, 0.7, [20.0] * 2 + [60.0] * 2)})
    )
    weight = 0.6 * math.exp(-((1 - 40 / 44) ** 2) / 0.025)
    expected = (0.8 * 60 + weight * 64) / (0.8 + weight)
    assert found.pred_boxes.tensor[0].tolist() == pytest.approx([20, 20, 60, expected], abs=1e-3)
    assert found.scores[0].item() == pytest.approx(0.8), "scores stay"


def test_a_box_that_nothing_overlaps_stays():
    box = torch.tensor([[3.0, 3.0, 3.0, 9.0]])
    classes = torch.zeros(1, dtype=torch.int64)
    assert torch.equal(vote(box, classes, box, torch.ones(1), classes), box)


def test_quality_multiplies_under_the_root():
    quality = torch.zeros(1, len(ANCHORS.boxes))  # probability 1/2
    found = detect(predictions_for({5: (0, 0.8, BOX)}, quality))
    assert found.scores[0].item() == pytest.approx(math.sqrt(0.8 * 0.5))


def test_boxes_are_clipped_to_the_image():
    found = detect(predictions_for({5: (2, 0.9, [100.0, 50.0, 300.0, 300.0])}))
    assert found.image_size == (96, 128)
    assert found.pred_boxes.tensor[0].tolist() == pytest.approx([100, 50, 128, 96], abs=1e-2)


def test_selection_has_a_fixed_size_per_level_and_can_be_exported():
    first, second = (predictions_for({anchor: (0, 0.8, BOX)}) for anchor in (5, 200))
    processor = PostProcessor(topk_candidates=20)
    sizes = torch.tensor([[96, 128]])
    for predictions in (first, second):
        scores, boxes = processor.select(predictions, sizes)
        # levels of 192, 48 and 12 anchors
        assert scores.shape == (1, 20 + 20 + 12, 3) and boxes.shape == (1, 52, 4)
        assert boxes[scores.amax(dim=-1) > 0.5].flatten().tolist() == pytest.approx(BOX, abs=1e-3)

    class Select(torch.nn.Module):
        def forward(self, scores, regression, sizes):
            return processor.select(first._replace(scores=scores, regression=regression), sizes)

    inputs = first.scores, first.regression, sizes
    exported = torch.export.export(Select(), inputs).module()
    other = second.scores, second.regression, sizes
    for ours, theirs in zip(processor.select(second, sizes), exported(*other), strict=True):
        assert torch.equal(ours, theirs)


def test_limits_on_number_and_score():
    detections = {i: (0, 0.3 + 0.01 * i, [10.0 * i, 5.0, 10.0 * i + 8, 90.0]) for i in range(10)}
    predictions = predictions_for(detections)
    assert len(detect(predictions)) == 10
    assert len(detect(predictions, max_detections=4)) == 4
    assert len(detect(predictions, score_thresh=0.355)) == 4
    assert len(detect(predictions, topk_candidates=3)) == 3


def test_fused_scores_are_not_passed_through_a_sigmoid():
    predictions = predictions_for({5: (0, 0.8, BOX)})
    fused = predictions._replace(scores=predictions.scores.sigmoid(), activation="none")
    assert detect(fused).scores.tolist() == pytest.approx([0.8])


@pytest.mark.parametrize("score", [-20.0, float("nan")])
def test_nothing_found_is_an_empty_result(score):
    predictions = predictions_for({})
    found = detect(predictions._replace(scores=torch.full_like(predictions.scores, score)))
    assert len(found) == 0 and found.pred_boxes.tensor.shape == (0, 4)
