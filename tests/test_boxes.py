import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from lad.boxes import (
    AnchorGenerator,
    boxes_on,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    paired_giou,
    paired_iou,
    take_boxes,
)


def test_anchors_are_detectron2s_with_offset_zero():
    strides = (8, 16, 32)
    anchors = AnchorGenerator(strides=strides)([(5, 7), (3, 4), (2, 2)])
    reference = DefaultAnchorGenerator(
        sizes=[[8 * s] for s in strides], aspect_ratios=[1.0], strides=strides, offset=0.0
    )
    maps = [torch.zeros(1, 1, *shape) for shape in anchors.shapes]
    assert torch.equal(anchors.boxes, torch.cat([b.tensor for b in reference(maps)]))
    assert ShapeSpec(stride=8).stride == anchors.strides[0]


def test_anchor_of_one_cell():
    anchors = AnchorGenerator(strides=(16,), scale=4)([(1, 2)])
    assert anchors.boxes.tolist() == [[-32, -32, 32, 32], [-16, -32, 48, 32]]


@pytest.mark.parametrize("arguments", [{"strides": ()}, {"strides": (8, 0)}, {"scale": -1.0}])
def test_bad_anchor_settings_are_refused(arguments):
    with pytest.raises(ValueError, match="positive strides and scale"):
        AnchorGenerator(**arguments)


def test_anchors_on_another_device_are_laid_anew():
    anchors = AnchorGenerator(strides=(8, 16))([(3, 4), (2, 2)])
    assert boxes_on(anchors, "cpu") is anchors.boxes
    elsewhere = anchors._replace(boxes=anchors.boxes.to("meta"))  # from there nothing can be copied
    assert torch.equal(boxes_on(elsewhere, "cpu"), anchors.boxes)


def test_number_of_levels_must_match():
    with pytest.raises(ValueError, match="2 feature maps, but anchors for 3 strides"):
        AnchorGenerator(strides=(8, 16, 32))([(4, 4), (2, 2)])


def test_decoding_by_hand():
    anchor = torch.tensor([0.0, 0.0, 10.0, 20.0])
    deltas = torch.tensor([1.0, -1.0, 5 * math.log(2), 0.0])
    # centre (5, 10) moves by 0.1 x (10, -20); the width doubles
    assert decode_boxes(anchor, deltas).tolist() == pytest.approx([-4.0, -2.0, 16.0, 18.0])


def test_decoding_clamps_both_ways():
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]]).expand(2, 4)
    boxes = decode_boxes(anchor, torch.tensor([[0, 0, 1e4, 0], [0, 0, -1e4, 0.0]]))
    widths = boxes[:, 2] - boxes[:, 0]
    assert widths.tolist() == pytest.approx([1000.0, 0.256], rel=1e-4)


def test_one_set_of_anchors_decodes_many_images():
    anchors = torch.tensor([[0.0, 0.0, 16.0, 16.0], [8.0, 8.0, 24.0, 40.0]])
    deltas = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([decode_boxes(anchors, image) for image in deltas])
    assert torch.equal(decode_boxes(anchors, deltas), alone)


def test_taken_boxes_are_those_at_the_indices():
    boxes = torch.arange(12.0).view(3, 4)
    index = torch.tensor([2, 0, 2])
    assert torch.equal(take_boxes(boxes, index), boxes[index])
    assert take_boxes(boxes, index[:0]).shape == (0, 4)
    with pytest.raises((IndexError, RuntimeError)):
        take_boxes(boxes, torch.tensor([3]))


def test_encoding_is_decodings_inverse():
    anchors = torch.tensor([[0.0, 0.0, 64.0, 64.0], [8.0, 8.0, 40.0, 72.0]])
    boxes = torch.tensor([[3.0, 5.0, 50.0, 99.0], [1.0, 2.0, 3.0, 4.0]])
    decoded = decode_boxes(anchors, encode_boxes(anchors, boxes))
    torch.testing.assert_close(decoded, boxes, rtol=1e-5, atol=1e-4)


def test_overlaps_by_hand():
    box = torch.tensor([0.0, 0.0, 2.0, 2.0])
    other = torch.tensor([1.0, 0.0, 3.0, 2.0])
    assert paired_iou(box, other).item() == pytest.approx(2 / 6)
    assert paired_giou(box, other).item() == pytest.approx(2 / 6)  # the hull is the union
    apart = torch.tensor([2.0, 2.0, 4.0, 4.0])
    assert paired_giou(box, apart).item() == pytest.approx(-0.5)  # hull 16, union 8


def test_overlaps_broadcast():
    box, others = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.rand(3, 2, 4).cumsum(dim=-1)
    for overlap in (paired_iou, paired_giou):
        expected = overlap(box.expand(3, 2, 4), others)
        assert torch.equal(overlap(box, others), expected)
        assert torch.equal(overlap(box[None], others), expected)


def test_overlap_of_boxes_without_area_is_zero():
    point = torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert paired_iou(point, point).item() == 0
    assert paired_iou(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


def test_clipping_to_each_images_own_size():
    boxes = torch.tensor([[[-5.0, -5.0, 300.0, 300.0]]] * 2)
    clipped = clip_boxes(boxes, torch.tensor([[100, 200], [50, 60]]))
    assert clipped.tolist() == [[[0, 0, 200, 100]], [[0, 0, 60, 50]]]
