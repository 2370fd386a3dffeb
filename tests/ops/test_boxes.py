import pytest
import torch

from lad.ops.boxes import clip_boxes, paired_diou, paired_giou, paired_iou, take_boxes


def random_boxes(*shape: int, seed: int = 0) -> torch.Tensor:
    corners = torch.rand(*shape, 2, 2, generator=torch.Generator().manual_seed(seed))
    return corners.sort(dim=-2).values.flatten(-2) * 10


def test_overlaps_by_hand():
    box = torch.tensor([0.0, 0.0, 2.0, 2.0])
    other = torch.tensor([1.0, 0.0, 3.0, 2.0])
    assert paired_iou(box, other).item() == pytest.approx(2 / 6)
    assert paired_giou(box, other).item() == pytest.approx(2 / 6)  # the hull is the union
    apart = torch.tensor([2.0, 2.0, 4.0, 4.0])
    assert paired_iou(box, apart).item() == 0
    assert paired_giou(box, apart).item() == pytest.approx(-0.5)  # hull 16, union 8
    # centers 1 apart, the hull's diagonal the root of 9 + 4
    assert paired_diou(box, other).item() == pytest.approx(2 / 6 - 1 / 13)
    assert paired_diou(box, apart).item() == pytest.approx(-8 / 32)


@pytest.mark.parametrize("overlap", [paired_iou, paired_giou, paired_diou])
def test_overlaps_do_not_depend_on_order_position_and_scale(overlap):
    boxes, others = random_boxes(50), random_boxes(50, seed=1)
    expected = overlap(boxes, others)
    torch.testing.assert_close(overlap(others, boxes), expected)
    torch.testing.assert_close(overlap(4 * boxes, 4 * others), expected)
    torch.testing.assert_close(overlap(boxes + 8, others + 8), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(overlap(boxes, boxes), torch.ones(50))


def test_overlaps_broadcast():
    box, others = torch.tensor([0.0, 0.0, 2.0, 2.0]), random_boxes(3, 2)
    for overlap in (paired_iou, paired_giou, paired_diou):
        expected = overlap(box.expand(3, 2, 4), others)
        assert torch.equal(overlap(box, others), expected)
        assert torch.equal(overlap(box[None], others), expected)


def test_overlap_of_boxes_without_area_is_zero():
    point = torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert paired_iou(point, point).item() == 0
    assert paired_giou(point, point).isfinite() and paired_diou(point, point) == 0


@pytest.mark.parametrize("overlap", [paired_iou, paired_giou])
def test_nan_spreads_to_its_own_pair_alone(overlap):
    boxes = torch.tensor([[0.0, 0, 2, 2], [0.0, torch.nan, 2, 2]])
    assert overlap(boxes, boxes[:1]).isnan().tolist() == [False, True]


@pytest.mark.parametrize("overlap", [paired_iou, paired_giou])
def test_no_boxes(overlap):
    assert overlap(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


def test_clipping_to_each_images_own_size():
    boxes = torch.tensor([[[-5.0, -5.0, 300.0, 300.0]]] * 2)
    clipped = clip_boxes(boxes, torch.tensor([[[100, 200]], [[50, 60]]]))
    assert clipped.tolist() == [[[0, 0, 200, 100]], [[0, 0, 60, 50]]]
    inside = torch.tensor([[1.0, 2.0, 30.0, 40.0]])
    assert torch.equal(clip_boxes(inside, torch.tensor([50, 60])), inside)
    assert clip_boxes(inside[:0], torch.tensor([50, 60])).shape == (0, 4)


def test_taken_boxes_are_those_at_the_indices():
    boxes = torch.arange(12.0).view(3, 4)
    index = torch.tensor([2, 0, 2])
    assert torch.equal(take_boxes(boxes, index), boxes[index])
    assert take_boxes(boxes, index[:0]).shape == (0, 4)
    with pytest.raises((IndexError, RuntimeError)):
        take_boxes(boxes, torch.tensor([3]))
