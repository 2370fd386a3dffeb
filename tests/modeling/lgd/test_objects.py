"""LGD's objects, descriptors and cells, by hand."""

import pytest
import torch

from helpers import make_targets
from lad.modeling.distill_losses.lgd.objects import Objects

SIZE = (64, 128)  # height, width of the padded images
CONTEXT = [0.0, 0, 128, 64]
PIXEL = [0.0, 0, 1, 1]


def objects(boxes, *, context=False, size=SIZE) -> Objects:
    return Objects.from_targets(make_targets(boxes), size, context=context)


def test_objects_are_padded_and_the_context_is_last():
    first, second, other = [1.0, 2, 30, 40], [5.0, 5, 9, 9], [3.0, 3, 60, 60]
    found = objects([[first, second], [other], []], context=True)
    assert found.present.tolist() == [[True, True, True], [True, False, True], [False, False, True]]
    assert found.classes.tolist() == [[0, 1, -1], [2, -1, -1], [-1, -1, -1]]
    assert found.boxes[0].tolist() == [first, second, CONTEXT]
    assert found.boxes[1, [0, 2]].tolist() == [other, CONTEXT]
    assert found.boxes[2, 2].tolist() == PIXEL, "of an image without objects it is one pixel"


def test_without_a_context_an_image_without_objects_has_one_pixel():
    found = objects([[[1.0, 2, 30, 40], [5.0, 5, 9, 9]], []])
    assert found.present.tolist() == [[True, True], [True, False]]
    assert found.boxes[1, 0].tolist() == PIXEL and found.classes[1].tolist() == [-1, -1]


@pytest.mark.parametrize("context", [True, False])
def test_a_batch_without_objects_has_a_pixel_per_image(context):
    found = objects([[], []], context=context)
    assert found.present.sum(dim=1).tolist() == [1, 1]
    assert found.boxes[found.present].tolist() == [PIXEL, PIXEL]
    cells = found.cells([(8, 16)])[0].sum(dim=1)
    assert cells.sum() == 2 and cells[:, 0, 0].tolist() == [1, 1]


def test_boxes_are_clamped_to_the_canvas():
    found = objects([[[-5.0, -6, 200, 300]]])
    assert found.boxes[0, 0].tolist() == [0, 0, 127, 63]


def test_descriptor_by_hand():
    found = objects([[[32.0, 16, 96, 48]]], context=True).descriptors(3)
    # x / 128, y / 64 and the one-hot class, from 0..1 to -1..1.
    assert found[0, 0].tolist() == [-0.5, -0.5, 0.5, 0.5, 1, -1, -1]
    assert found[0, 1].tolist() == [-1, -1, 1, 1, -1, -1, -1], "the context has no class"


def test_cells_by_hand():
    found = objects([[[10.0, 20, 100, 120]]], size=(256, 256)).cells([(32, 32), (16, 16)])
    expected = torch.zeros(32, 32)
    expected[3:16, 2:13] = 1  # 1.25 to 12.5 by 2.5 to 15
    assert torch.equal(found[0][0, 0], expected)
    expected = torch.zeros(16, 16)
    expected[2:8, 1:7] = 1  # 0.625 to 6.25 by 1.25 to 7.5
    assert torch.equal(found[1][0, 0], expected)


def test_cells_measured_from_their_centers():
    found = objects([[[10.0, 20, 100, 120]]], size=(256, 256)).cells([(32, 32)], half_cell=True)[0]
    expected = torch.zeros(32, 32)
    expected[2:15, 1:13] = 1  # centers 2.5 to 14.5 by 1.5 to 12.5, limits inclusive
    assert torch.equal(found[0, 0], expected)


@pytest.mark.parametrize(
    ("box", "row", "column"),
    [([17.0, 17, 22, 22], 2, 2), ([22.0, 11, 23, 14], 2, 3), ([125.0, 60, 127, 63], 7, 15)],
)
def test_a_small_object_has_no_cell_or_the_nearest(box, row, column):
    found = objects([[box]])
    assert found.cells([(8, 16)])[0].sum() == 0
    cells = found.cells([(8, 16)], one_cell=True)[0][0, 0]
    assert cells.nonzero().tolist() == [[row, column]]


def test_a_box_without_a_row_of_cells_keeps_its_columns():
    cells = objects([[[8.0, 17, 40, 22]]]).cells([(8, 16)], one_cell=True)[0][0, 0]
    assert cells.nonzero().tolist() == [[2, x] for x in range(1, 6)]


def test_the_context_covers_padding_and_absent_objects_nothing():
    cells = objects([[[8.0, 8, 24, 24], [0.0, 0, 9, 9]], [[8.0, 8, 24, 24]]], context=True)
    cells = cells.cells([(8, 16), (1, 1)])
    assert cells[0].shape == (2, 3, 8, 16) and cells[1].shape == (2, 3, 1, 1)
    assert all((x[:, 2] == 1).all() for x in cells)
    assert cells[0][1, 1].sum() == 0
    assert torch.equal(cells[0][0, 0], cells[0][1, 0])


def masked_targets():
    targets = make_targets([[[0.0, 0, 64, 64]], [[64.0, 0, 128, 64]]])
    masks = torch.zeros(2, 64, 128, dtype=torch.bool)
    masks[0, :32, :64] = True  # the upper half of its box
    masks[1, :, 64:96] = True  # the left half
    return targets._replace(masks=masks)


def test_instance_masks_by_hand():
    found = Objects.from_targets(masked_targets(), SIZE, context=True, masks=True)
    cells = found.cells([(8, 16), (1, 2)])
    expected = torch.zeros(8, 16)
    expected[:4, :8] = 1
    assert torch.equal(cells[0][0, 0], expected)
    assert cells[1][:, 0].tolist() == [[[1, 0]], [[0, 1]]], "the nearest pixel decides"
    assert all((x[:, -1] == 1).all() for x in cells)
    crops = found.descriptors(3)[..., 7:].view(2, 2, 7, 7)
    assert crops[0, 0].tolist() == [[1.0] * 7] * 4 + [[-1.0] * 7] * 3
    assert crops[1, 0].tolist() == [[1.0] * 4 + [-1.0] * 3] * 7
    assert (crops[:, 1] == 1).all()


def test_instance_masks_of_smaller_images_are_padded():
    targets = masked_targets()
    found = Objects.from_targets(targets, (96, 160), context=False, masks=True)
    assert found.masks.shape == (2, 1, 96, 160)
    assert torch.equal(found.masks[:, 0, :64, :128], targets.masks)
    assert found.masks.sum() == targets.masks.sum()


def test_an_image_without_instance_masks_has_one_pixel():
    targets = make_targets([[], [[0.0, 0, 9, 9]]])
    targets = targets._replace(masks=torch.ones(1, 64, 128, dtype=torch.bool))
    for context in (True, False):
        found = Objects.from_targets(targets, SIZE, context=context, masks=True)
        assert found.masks[0].sum() == 1 and found.masks[0, -1 if context else 0, 0, 0]


def test_missing_instance_masks_are_one_line():
    with pytest.raises(ValueError, match="needs instance masks: set dataloader.train.mapper"):
        Objects.from_targets(make_targets([[]]), SIZE, context=True, masks=True)
