import pytest
import torch

from benchmarks.assignment import matrix_candidates
from helpers import make_anchors, make_targets, random_boxes
from lad.assignment.candidates import iou_candidates
from lad.boxes import AnchorGenerator


def owner_of_anchors(anchors, targets, candidates):
    owner = torch.full((len(targets.image_sizes), len(anchors.boxes)), -1)
    owner[candidates.image, candidates.anchor] = candidates.gt
    return owner


def by_definition(anchors, targets, min_iou=0.1):
    """The rule of the PAA paper over the whole IoU matrix, image by image."""
    return owner_of_anchors(anchors, targets, matrix_candidates(anchors, targets, min_iou))


def owners(anchors, targets, min_iou=0.1):
    candidates = iou_candidates(anchors, targets, min_iou=min_iou)
    return owner_of_anchors(anchors, targets, candidates), candidates


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_rule_over_the_whole_iou_matrix(seed):
    anchors = make_anchors(224, 320, strides=(8, 16, 32, 64))
    boxes = [random_boxes(25, 224, 320, seed), [], random_boxes(6, 100, 150, seed + 50)]
    targets = make_targets(boxes, [(224, 320), (224, 320), (100, 150)])
    owner, candidates = owners(anchors, targets)
    assert torch.equal(owner, by_definition(anchors, targets))
    key = (candidates.gt * 10 + candidates.level) * len(anchors.boxes) + candidates.anchor
    assert torch.equal(key, key.sort().values), "ordered by object, level, anchor"


@pytest.mark.parametrize("min_iou", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("scale", [8.0, 1.5])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_rule_for_objects_that_leave_the_image_or_lie_on_the_grid(seed, scale, min_iou):
    anchors = AnchorGenerator(strides=(8, 16, 32), scale=scale)([(12, 16), (6, 8), (3, 4)])
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(30, 2, generator=generator) * torch.tensor([205.0, 154.0]) - 35
    side = 2 ** (torch.rand(30, 2, generator=generator) * 8)
    centre[:15], side[:15] = (centre[:15] / 8).round() * 8, (side[:15] / 16).ceil() * 16
    boxes = torch.cat([centre - side / 2, centre + side / 2], dim=1)
    # The rule is about objects with a candidate: they touch the image, 64 x 96 when rounded up.
    touches = (boxes[:, 2:] > -4).all(1) & (boxes[:, :2] < torch.tensor([88.0, 56.0])).all(1)
    targets = make_targets([boxes[touches].tolist()], [(60, 90)])
    owner, _ = owners(anchors, targets, min_iou)
    assert torch.equal(owner, by_definition(anchors, targets, min_iou))


def test_a_tiny_object_claims_every_anchor_around_it():
    anchors = make_anchors(256, 256, strides=(8, 16))
    targets = make_targets([[[127.0, 127.0, 133.0, 133.0]]], [(256, 256)])
    owner, candidates = owners(anchors, targets)
    assert torch.equal(owner, by_definition(anchors, targets))
    # |centre - 130| <= 32 - 3 holds for 104, 112 ... 152: 7 x 7 anchors of side 64 contain the box
    assert len(candidates.gt) == 49 and set(candidates.level.tolist()) == {0}


def test_of_two_equal_objects_the_later_takes_the_best_anchor():
    anchors = make_anchors()
    box = [16.0, 16.0, 80.0, 80.0]
    owner, _ = owners(anchors, make_targets([[box, box]]))
    best = (anchors.boxes == torch.tensor(box)).all(dim=1)
    assert owner[0, best].item() == 1
    assert (owner[0] == 0).any(), "the other anchors go to the earlier object"


def test_order_of_images_does_not_matter():
    anchors = make_anchors()
    first, second = random_boxes(4, 96, 128, 1), random_boxes(3, 96, 128, 2)
    forth, _ = owners(anchors, make_targets([first, second]))
    back, _ = owners(anchors, make_targets([second, first]))
    assert torch.equal(torch.where(forth[0] >= 0, forth[0] + 3, -1), back[1])


def test_no_objects_and_a_thousand():
    anchors = make_anchors()
    assert len(iou_candidates(anchors, make_targets([[], []])).gt) == 0
    targets = make_targets([random_boxes(1000, 96, 128)])
    owner, _ = owners(anchors, targets)
    assert torch.equal(owner, by_definition(anchors, targets))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("box", [[900.0, 900.0, 910.0, 910.0], [20.0, 20.0, 20.0, 50.0]])
def test_an_object_that_no_anchor_overlaps_has_no_candidates(box):
    targets = make_targets([[box]], [(96, 128)])
    assert len(iou_candidates(make_anchors(), targets).gt) == 0
