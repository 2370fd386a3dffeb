import logging

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from helpers import make_anchors, make_candidates, make_predictions
from lad.modeling.anchor_generator import AnchorGenerator
from lad.structures import CandidateCosts, Candidates, Targets, pad_sizes


def instances(boxes: list[list[float]], classes: list[int]) -> Instances:
    return Instances(
        (60, 80),
        gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
    )


def test_targets_are_flat_over_the_batch():
    batch = [
        instances([[0.0, 0, 9, 9]], [2]),
        instances([], []),
        instances([[1.0, 1, 5, 5]] * 2, [0, 1]),
    ]
    targets = Targets.from_instances(batch)
    assert targets.image.tolist() == [0, 2, 2]
    assert targets.classes.tolist() == [2, 0, 1]
    assert targets.image_sizes.tolist() == [[60, 80]] * 3
    assert all(torch.equal(x, y) for x, y in zip(targets.to("cpu")[:4], targets[:4], strict=True))
    assert targets.masks is None


def with_masks(size, *boxes):
    image = Instances(size)
    image.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    image.gt_classes = torch.arange(len(boxes))
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    image.gt_masks = BitMasks(masks)
    return image


def test_instance_masks_are_padded_and_come_back():
    batch = [with_masks((20, 30), (1, 2, 9, 9), (4, 4, 4, 8), (5, 5, 20, 15)), with_masks((25, 10))]
    targets = Targets.from_instances(batch)
    assert targets.masks.shape == (2, 25, 30), "the object without area is gone"
    assert targets.masks.sum(dim=(1, 2)).tolist() == [56, 150]
    assert torch.equal(targets.to("cpu").masks, targets.masks)
    first, second = targets.to_instances()
    assert first.image_size == (20, 30) and second.image_size == (25, 10)
    kept = batch[0][torch.tensor([True, False, True])]
    assert torch.equal(first.gt_masks.tensor, kept.gt_masks.tensor)
    assert torch.equal(first.gt_boxes.tensor, kept.gt_boxes.tensor)
    assert first.gt_classes.tolist() == [0, 2] and len(second) == 0


def test_polygons_are_no_masks():
    image = with_masks((20, 30), (1, 2, 9, 9))
    image.gt_masks = PolygonMasks([[[1.0, 2, 9, 2, 9, 9]]])
    targets = Targets.from_instances([image])
    assert targets.masks is None and not targets.to_instances()[0].has("gt_masks")


def test_boxes_without_area_are_dropped_with_a_count(caplog):
    batch = [instances([[0.0, 0, 9, 9], [3.0, 3, 3, 8]], [0, 1]), instances([[5.0, 5, 5, 5]], [2])]
    with caplog.at_level(logging.WARNING):
        targets = Targets.from_instances(batch)
    assert targets.classes.tolist() == [0] and targets.image.tolist() == [0]
    assert "Dropped 2 ground-truth boxes without area" in caplog.text


def test_batch_without_objects():
    targets = Targets.from_instances([instances([], [])])
    assert targets.boxes.shape == (0, 4) and targets.image_sizes.shape == (1, 2)


def test_sizes_are_padded_to_multiples_of_32():
    sizes = torch.tensor([[1, 32], [33, 64], [800, 1333]])
    assert pad_sizes(sizes).tolist() == [[32, 32], [64, 64], [800, 1344]]


def test_anchors_are_valid_up_to_the_image_rounded_up_to_32():
    anchors = make_anchors(96, 128)
    valid = anchors.valid(torch.tensor([[96, 128], [33, 64]]))
    assert valid[0].all()
    cells = valid[1].split(anchors.num_per_level)
    # 33 x 64 rounds up to 64 x 64: 8 x 8, 4 x 4 and 2 x 2 cells
    assert [int(level.sum()) for level in cells] == [64, 16, 4]
    assert cells[2].view(3, 4)[:2, :2].all()
    assert anchors.valid(torch.zeros(0, 2, dtype=torch.int64)).shape == (0, len(anchors.boxes))


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_centers_that_rounding_moves_are_valid_where_their_cells_are(offset):
    anchors = AnchorGenerator(strides=(90, 64), scale=30.35)([(8, 8), (12, 12)])
    strides = anchors.per_anchor(anchors.strides)
    anchors = anchors._replace(boxes=anchors.boxes + offset * strides[:, None])
    sizes = torch.tensor([[640, 90], [33, 320], [450, 271]])
    valid = anchors.valid(sizes).split(anchors.num_per_level, dim=1)
    for level, grid in enumerate(anchors.grids):
        y = (torch.arange(grid.height) + offset) * grid.stride
        x = (torch.arange(grid.width) + offset) * grid.stride
        rows = y < pad_sizes(sizes)[:, :1]
        columns = x < pad_sizes(sizes)[:, 1:]
        expected = rows[:, :, None] & columns[:, None]
        assert torch.equal(valid[level], expected.flatten(1))


def test_each_anchor_has_the_value_of_its_level():
    anchors = make_anchors(32, 32)  # 16, 4 and 1 anchors
    assert anchors.per_anchor((7, 8, 9)).tolist() == [7] * 16 + [8] * 4 + [9]


def test_predictions_give_probabilities_and_leave_the_graph():
    predictions = make_predictions(1, make_anchors())
    torch.testing.assert_close(predictions.class_probabilities(), predictions.scores.sigmoid())
    fused = predictions._replace(activation="none")
    assert fused.class_probabilities() is fused.scores
    assert not predictions.detach().regression.requires_grad
    assert predictions._replace(quality=None).detach().quality is None


def test_boxes_at_indices_are_those_of_all():
    predictions = make_predictions(3, make_anchors())
    image, anchor = torch.tensor([2, 0, 2, 1]), torch.tensor([5, 100, 5, 0])
    boxes = predictions.boxes((image, anchor))
    torch.testing.assert_close(boxes, predictions.boxes()[image, anchor])
    assert predictions.boxes((image[:0], anchor[:0])).shape == (0, 4)
    half = predictions._replace(regression=predictions.regression.bfloat16())
    assert half.boxes().dtype == half.boxes((image, anchor)).dtype == torch.float32
    with pytest.raises((IndexError, RuntimeError)):
        predictions.boxes((torch.tensor([0]), torch.tensor([10**6])))


def test_zero_regression_gives_the_anchors():
    predictions = make_predictions(2, make_anchors())
    zero = predictions._replace(regression=torch.zeros_like(predictions.regression))
    torch.testing.assert_close(zero.boxes(), predictions.anchors.boxes.expand(2, -1, 4))


def test_candidates_have_positions_in_the_flattened_batch():
    candidates = Candidates(*(torch.tensor(x) for x in ([0, 1], [3, 2], [0, 1], [0, 0])))
    assert candidates.slot(10).tolist() == [3, 12]
    assert make_candidates([], []).slot(10).tolist() == []


def test_costs_are_chosen_in_whole_rows():
    one = CandidateCosts(torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2]))
    other = CandidateCosts(torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]))
    mask = torch.tensor([True, False])
    mixed = one.where(mask, other)
    assert mixed.cost.tolist() == [1, 4]
    torch.testing.assert_close(mixed.iou, torch.tensor([0.1, 0.4]))
    assert one.where(mask, CandidateCosts(other.cost)).iou is None
