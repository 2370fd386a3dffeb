import logging

import torch
from detectron2.structures import Boxes, Instances

from helpers import make_anchors, make_predictions
from lad.boxes import AnchorGenerator
from lad.structures import Targets


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


def test_boxes_without_area_are_dropped_with_a_count(caplog):
    batch = [instances([[0.0, 0, 9, 9], [3.0, 3, 3, 8]], [0, 1]), instances([[5.0, 5, 5, 5]], [2])]
    with caplog.at_level(logging.WARNING):
        targets = Targets.from_instances(batch)
    assert targets.classes.tolist() == [0] and targets.image.tolist() == [0]
    assert "Dropped 2 ground-truth boxes without area" in caplog.text


def test_batch_without_objects():
    targets = Targets.from_instances([instances([], [])])
    assert targets.boxes.shape == (0, 4) and targets.image_sizes.shape == (1, 2)


def test_anchors_are_valid_up_to_the_image_rounded_up_to_32():
    anchors = make_anchors(96, 128)
    valid = anchors.valid(torch.tensor([[96, 128], [33, 64]]))
    assert valid[0].all()
    cells = valid[1].split(anchors.num_per_level)
    # 33 x 64 rounds up to 64 x 64: 8 x 8, 4 x 4 and 2 x 2 cells
    assert [int(level.sum()) for level in cells] == [64, 16, 4]
    assert cells[2].view(3, 4)[:2, :2].all()


def test_centres_that_rounding_moves_are_valid_where_their_cells_are():
    anchors = AnchorGenerator(strides=(90, 64), scale=30.35)([(8, 8), (12, 12)])
    sizes = torch.tensor([[640, 90], [33, 320], [450, 271]])
    valid = anchors.valid(sizes).split(anchors.num_per_level, dim=1)
    for level, (rows, columns) in enumerate(anchors.shapes):
        counts = torch.from_numpy(anchors.valid_shapes(sizes)[:, level])
        inside = torch.arange(rows) < counts[:, :1]
        expected = inside[:, :, None] & (torch.arange(columns) < counts[:, 1:])[:, None]
        assert torch.equal(valid[level], expected.flatten(1))


def test_predictions_give_probabilities_and_leave_the_graph():
    predictions = make_predictions(1, make_anchors())
    torch.testing.assert_close(predictions.class_probabilities(), predictions.scores.sigmoid())
    fused = predictions._replace(probabilities=True)
    assert fused.class_probabilities() is fused.scores
    assert not predictions.detach().deltas.requires_grad
