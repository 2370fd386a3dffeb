import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from helpers import generic, make_anchors, make_targets, matrix_owners, random_boxes
from lad.assignment import candidates as candidates_module
from lad.assignment.candidates import (
    center_candidates,
    centers,
    iou_candidates,
    nearest_candidates,
    window_pairs,
)
from lad.modeling.anchor_generator import AnchorGenerator, grid_boxes
from lad.structures import Anchors, Candidates, Grid

LAYOUTS = {"grid": lambda anchors: anchors, "generic": generic}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
RULES = {
    "iou": lambda anchors, targets: iou_candidates(anchors, targets),
    "center": lambda anchors, targets: center_candidates(anchors, targets, radius=2.5),
    "nearest": lambda anchors, targets: nearest_candidates(anchors, targets, topk=9),
}
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def owners(anchors, targets, min_iou=0.1):
    """The object of every anchor, from the candidates."""
    candidates = iou_candidates(anchors, targets, min_iou=min_iou)
    owner = torch.full((len(targets.image_sizes), len(anchors.boxes)), -1)
    owner[candidates.image, candidates.anchor] = candidates.gt
    assert (owner >= 0).sum() == len(candidates.gt), "no anchor has two objects"
    return owner


def grid_anchors(*grids: Grid) -> Anchors:
    """Anchors of any regular layout."""
    boxes = [grid_boxes(grid) for grid in grids]
    strides = tuple(grid.stride for grid in grids)
    return Anchors(torch.cat(boxes), tuple(map(len, boxes)), strides, grids)


def nine_per_cell(height: int, width: int, offset: float = 0.0) -> Anchors:
    """RetinaNet's anchors."""
    strides = (8, 16, 32)
    octaves = [1.0, 2 ** (1 / 3), 2 ** (2 / 3)]
    generator = DefaultAnchorGenerator(
        sizes=[[4.0 * stride * octave for octave in octaves] for stride in strides],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=strides,
        offset=offset,
    )
    boxes = generator([torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in strides])
    return Anchors(torch.cat([x.tensor for x in boxes]), tuple(map(len, boxes)), strides)


def scenes(seed: int):
    """Random objects of three images, the second empty, the third small."""
    boxes = [random_boxes(25, 96, 128, seed), [], random_boxes(6, 60, 90, seed + 50)]
    return make_targets(boxes, [(96, 128), (96, 128), (60, 90)])


def same(ours: Candidates, others: Candidates) -> bool:
    return all(torch.equal(x, y) for x, y in zip(ours, others, strict=True))


def side_by_side() -> Anchors:
    """Four anchors of 10 x 10 pixels in a row, not regular for the fast path."""
    boxes = torch.tensor([[10.0 * i, 0.0, 10.0 * i + 10, 10.0] for i in range(4)])
    return Anchors(boxes, (4,), (10,))


@pytest.mark.parametrize("size", [1, 4000])
def test_some_objects_at_a_time_have_the_candidates_of_all(size, monkeypatch):
    anchors, targets = nine_per_cell(96, 128), scenes(0)
    expected = iou_candidates(anchors, targets)
    monkeypatch.setattr(candidates_module, "_MATRIX", size)
    assert same(iou_candidates(anchors, targets), expected) and len(expected.gt)
    assert torch.equal(owners(anchors, targets), matrix_owners(anchors, targets))


def test_candidates_by_iou_worked_by_hand():
    # IoUs with the anchors: object 0: 9/11, 1/19; object 1: 1/19, 9/11; object 2: 1 x 1 in anchor 3
    targets = make_targets([[[1.0, 0, 11, 10], [9.0, 0, 19, 10], [34.0, 4, 35, 5]]], [(32, 64)])
    candidates = iou_candidates(side_by_side(), targets)
    assert candidates.gt.tolist() == [0, 1, 2]
    assert candidates.anchor.tolist() == [0, 1, 3], "IoU 0.01 is object 2's best"
    lower = iou_candidates(side_by_side(), targets, min_iou=0.01)
    assert lower.anchor.tolist() == [0, 1, 3], "a higher IoU and an object's best count more"


def test_an_objects_best_anchor_counts_more_than_a_higher_iou():
    # Object 0 has IoUs 10/14 and 4/20 with anchors 0 and 1; object 1 has 1/10 with anchor 1.
    targets = make_targets([[[0.0, 0, 14, 10], [12.0, 0, 13, 10]]], [(32, 64)])
    candidates = iou_candidates(side_by_side(), targets)
    assert list(zip(candidates.gt.tolist(), candidates.anchor.tolist(), strict=True)) == [
        (0, 0),
        (1, 1),
    ]


def test_windows_worked_by_hand():
    # The example of `window_pairs`: rows 3 to 12, columns 8 to 17 of stride 8.
    grids = (Grid(20, 30, 8, 64.0),)
    targets = make_targets([[[80.0, 40, 120, 80]]], [(160, 240)])
    gt, level, anchor, boxes = window_pairs(grids, targets, 0.1)
    expected = [row * 30 + column for row in range(3, 13) for column in range(8, 18)]
    assert anchor.tolist() == expected
    assert not gt.any() and not level.any()
    assert torch.equal(boxes, grid_boxes(grids[0])[anchor])


@layouts
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_rule_over_the_whole_iou_matrix(seed, layout):
    anchors = layout(make_anchors(224, 320, strides=(8, 16, 32, 64)))
    boxes = [random_boxes(25, 224, 320, seed), [], random_boxes(6, 100, 150, seed + 50)]
    targets = make_targets(boxes, [(224, 320), (224, 320), (100, 150)])
    assert torch.equal(owners(anchors, targets), matrix_owners(anchors, targets))


@layouts
@pytest.mark.parametrize("min_iou", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("scale", [8.0, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_rule_for_objects_that_leave_the_image_or_lie_on_the_grid(
    seed, scale, min_iou, layout
):
    anchors = AnchorGenerator(strides=(8, 16, 32), scale=scale)([(12, 16), (6, 8), (3, 4)])
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(30, 2, generator=generator) * torch.tensor([205.0, 154.0]) - 35
    side = 2 ** (torch.rand(30, 2, generator=generator) * 8)
    center[:15], side[:15] = (center[:15] / 8).round() * 8, (side[:15] / 16).ceil() * 16
    boxes = torch.cat([center - side / 2, center + side / 2], dim=1)
    # The rule is about objects with a candidate: they touch the image, 64 x 96 when rounded up.
    touches = (boxes[:, 2:] > -4).all(1) & (boxes[:, :2] < torch.tensor([88.0, 56.0])).all(1)
    targets = make_targets([boxes[touches].tolist()], [(60, 90)])
    expected = matrix_owners(anchors, targets, min_iou)
    assert torch.equal(owners(layout(anchors), targets, min_iou), expected)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_the_fast_path_of_regular_grids_gives_the_same_candidates(seed, offset):
    strides, shapes = (8, 16, 32), [(12, 16), (6, 8), (3, 4)]
    anchors = grid_anchors(
        *(Grid(*x, s, 8.0 * s, offset * s) for x, s in zip(shapes, strides, strict=True))
    )
    targets = scenes(seed)
    for min_iou in (0.1, 0.4):
        fast = iou_candidates(anchors, targets, min_iou=min_iou)
        assert same(fast, iou_candidates(generic(anchors), targets, min_iou=min_iou))
    assert torch.equal(owners(anchors, targets), matrix_owners(anchors, targets))


def test_a_level_without_a_valid_cell_does_not_hide_the_others():
    # The only center of the second level, (64, 64), lies outside the padded image of 64 x 64.
    anchors = grid_anchors(Grid(8, 8, 8, 8, 4), Grid(1, 1, 128, 128, 64))
    targets = make_targets([[[-150.0, -150.0, 60.0, 60.0]]], [(64, 64)])
    candidates = iou_candidates(anchors, targets)
    assert len(candidates.gt) == 49, "anchors inside the box: centers 4 to 52 in x and in y"
    assert same(candidates, iou_candidates(generic(anchors), targets))


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_nine_anchors_per_cell(seed, offset):
    anchors, targets = nine_per_cell(96, 128, offset), scenes(seed)
    assert torch.equal(owners(anchors, targets), matrix_owners(anchors, targets))
    inside = center_candidates(anchors, targets)
    x, y = centers(anchors)[inside.anchor].t()
    left, top, right, bottom = targets.boxes[inside.gt].double().t()
    assert ((left < x) & (x < right) & (top < y) & (y < bottom)).all()
    nearest = nearest_candidates(anchors, targets, topk=9)
    per_level = torch.bincount(nearest.gt * 3 + nearest.level)
    assert (per_level == 9).all(), "as many as asked for, of one cell or of several"


@rules
@layouts
def test_candidates_are_ordered_and_know_their_image_and_level(rule, layout):
    anchors, targets = layout(make_anchors()), scenes(0)
    candidates = rule(anchors, targets)
    key = candidates.gt * len(anchors.boxes) + candidates.anchor
    assert (key.diff() > 0).all(), "by object, then anchor, no pair twice"
    assert torch.equal(candidates.image, targets.image[candidates.gt])
    assert torch.equal(candidates.level, anchors.per_anchor((0, 1, 2))[candidates.anchor])
    valid = anchors.valid(targets.image_sizes)
    assert valid[candidates.image, candidates.anchor].all() and not valid.all()


@rules
def test_regular_and_generic_anchors_have_the_same_candidates(rule):
    anchors, targets = make_anchors(), scenes(7)
    assert same(rule(anchors, targets), rule(generic(anchors), targets))


@rules
@layouts
def test_the_order_of_images_does_not_matter(rule, layout):
    anchors = layout(make_anchors())
    first, second = random_boxes(4, 96, 128, 1), random_boxes(3, 96, 128, 2)
    forth = rule(anchors, make_targets([first, second]))
    back = rule(anchors, make_targets([second, first]))
    assert torch.equal(forth.anchor[forth.image == 0], back.anchor[back.image == 1])
    assert torch.equal(forth.gt[forth.image == 0] + 3, back.gt[back.image == 1])


@rules
@layouts
def test_no_objects_have_no_candidates(rule, layout):
    candidates = rule(layout(make_anchors()), make_targets([[], []]))
    assert all(len(x) == 0 and x.dtype == torch.int64 for x in candidates)


@layouts
def test_a_thousand_objects(layout):
    anchors, targets = layout(make_anchors()), make_targets([random_boxes(1000, 96, 128)])
    assert torch.equal(owners(anchors, targets), matrix_owners(anchors, targets))


@layouts
def test_a_tiny_object_claims_every_anchor_around_it(layout):
    anchors = layout(make_anchors(256, 256, strides=(8, 16)))
    targets = make_targets([[[127.0, 127.0, 133.0, 133.0]]], [(256, 256)])
    candidates = iou_candidates(anchors, targets)
    # |center - 130| <= 32 - 3 holds for 104, 112 ... 152: 7 x 7 anchors of side 64 contain the box
    assert len(candidates.gt) == 49 and set(candidates.level.tolist()) == {0}


@layouts
def test_of_two_equal_objects_the_later_takes_the_best_anchor(layout):
    anchors = layout(make_anchors())
    box = [16.0, 16.0, 80.0, 80.0]
    owner = owners(anchors, make_targets([[box, box]]))
    best = (anchors.boxes == torch.tensor(box)).all(dim=1)
    assert owner[0, best].item() == 1
    assert (owner[0] == 0).any(), "the other anchors go to the earlier object"


@layouts
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("box", [[900.0, 900.0, 910.0, 910.0], [20.0, 20.0, 20.0, 50.0]])
def test_an_object_that_no_anchor_overlaps_has_no_candidates(box, layout):
    inside = [10.0, 10.0, 60.0, 70.0]
    anchors = layout(make_anchors())
    alone = iou_candidates(anchors, make_targets([[inside]], [(96, 128)]))
    both = iou_candidates(anchors, make_targets([[inside, box]], [(96, 128)]))
    assert same(both, alone)


def test_centers_inside_the_box_or_near_its_center_worked_by_hand():
    anchors = make_anchors(96, 128, strides=(8,))
    targets = make_targets([[[2.0, 44, 126, 52]]])  # long and flat, its center (64, 48)
    candidates = center_candidates(anchors, targets, radius=2.5)
    cells = {(a // 16, a % 16) for a in candidates.anchor.tolist()}
    row = {(6, x) for x in range(1, 16)}  # y = 48; x = 8 to 120
    near = {(y, x) for y in range(4, 9) for x in range(6, 11)}  # less than 20 away
    assert cells == row | near
    inside = center_candidates(anchors, targets)
    assert {(a // 16, a % 16) for a in inside.anchor.tolist()} == row


def test_of_anchors_equally_near_the_earlier_are_candidates():
    anchors = AnchorGenerator(strides=(8,), scale=2)([(4, 4)])  # centers 0, 8, 16, 24
    targets = make_targets([[[0.0, 0, 24, 24]]], [(32, 32)])  # center 12: between 8 and 16
    assert nearest_candidates(anchors, targets, topk=3).anchor.tolist() == [5, 6, 9]


@pytest.mark.parametrize("shape", [(1, 12), (12, 1), (2, 7), (2, 2)])
def test_nearest_on_narrow_levels_and_for_objects_outside(shape):
    anchors = AnchorGenerator(strides=(8,), scale=2)([shape])
    size = shape[0] * 8, shape[1] * 8
    corners = [[x, y, x + 7.0, y + 9.0] for x in (-9.0, 0.0, 3.0, 40.5) for y in (-4.0, 8.0, 50.0)]
    targets = make_targets([corners], [size])
    candidates = nearest_candidates(anchors, targets, topk=9)
    for index, box in enumerate(targets.boxes.double()):
        distance = (centers(anchors) - (box[:2] + box[2:]) / 2).pow(2).sum(dim=1)
        expected = distance.argsort(stable=True)[:9].sort().values
        assert torch.equal(candidates.anchor[candidates.gt == index], expected)
