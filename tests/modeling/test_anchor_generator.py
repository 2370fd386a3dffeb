import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, pairwise_iou

from lad.modeling.anchor_generator import AnchorGenerator, grid_boxes
from lad.structures import Grid


def test_anchors_are_detectron2s_with_offset_zero():
    strides, shapes = (8, 16, 32), [(5, 7), (3, 4), (2, 2)]
    anchors = AnchorGenerator(strides=strides)(shapes)
    reference = DefaultAnchorGenerator(
        sizes=[[8 * s] for s in strides], aspect_ratios=[1.0], strides=strides, offset=0.0
    )
    maps = [torch.zeros(1, 1, *shape) for shape in shapes]
    assert torch.equal(anchors.boxes, torch.cat([b.tensor for b in reference(maps)]))
    assert anchors.num_per_level == (35, 12, 4)


def test_anchors_of_two_cells_by_hand():
    anchors = AnchorGenerator(strides=(16,), scale=4)([(1, 2)])
    assert anchors.boxes.tolist() == [[-32, -32, 32, 32], [-16, -32, 48, 32]]
    assert grid_boxes(Grid(1, 2, 16, 16, 8)).tolist() == [[0, 0, 16, 16], [16, 0, 32, 16]]


def test_equal_shapes_give_the_same_anchors_and_others_their_own():
    generator = AnchorGenerator(strides=(8,))
    anchors = generator([(2, 2)])
    assert generator([(2, 2)]) is anchors
    assert len(generator([(2, 3)]).boxes) == 6


def test_empty_maps_have_no_anchors():
    assert AnchorGenerator(strides=(8,))([(0, 4)]).boxes.shape == (0, 4)


@pytest.mark.parametrize("arguments", [{"strides": ()}, {"strides": (8, 0)}, {"scale": -1.0}])
def test_bad_settings_are_refused(arguments):
    with pytest.raises(ValueError, match="positive strides and scale"):
        AnchorGenerator(**arguments)


def test_number_of_levels_must_match():
    with pytest.raises(ValueError, match="2 feature maps, but anchors for 3 strides"):
        AnchorGenerator(strides=(8, 16, 32))([(4, 4), (2, 2)])


def test_best_iou_by_hand():
    generator = AnchorGenerator(strides=(8, 16), scale=2)
    boxes = [
        [0.0, 0, 18, 16],  # center (9, 8): the anchor (0, 0, 16, 16)
        [0.0, 0, 32, 32],  # the anchor of side 32 at (16, 16)
        [2.0, 0, 34, 8],  # center (18, 4), between two rows of anchors (8, -8, 24, 8)
        [5.0, 5, 5, 5],
    ]
    expected = [256 / 288, 1, 128 / 384, 0]
    assert generator.best_iou(torch.tensor(boxes)).tolist() == pytest.approx(expected)
    assert generator.best_iou(torch.zeros(0, 4)).shape == (0,)


def test_best_iou_is_that_of_all_anchors():
    generator = AnchorGenerator(strides=(8, 16), scale=4)
    anchors = generator([(24, 24), (12, 12)]).boxes
    corners = torch.rand(200, 2, 2, generator=torch.Generator().manual_seed(0)).sort(dim=1).values
    boxes = 60 + 70 * corners.reshape(-1, 4)
    expected = pairwise_iou(Boxes(boxes), Boxes(anchors)).amax(1)
    torch.testing.assert_close(generator.best_iou(boxes), expected)
