import math

import pytest
import torch

from helpers import make_candidates, make_targets
from lad.assignment.indicators import Fisher, StdMean
from lad.assignment.switch import SCOPES, RoleSwitch

SPREAD = [1.0, 2.0, 3.0]  # std/mean 1/2
TIGHT = [2.0, 2.1, 2.2]
BOX = [0.0, 0.0, 50.0, 50.0]
scopes = pytest.mark.parametrize("scope", SCOPES)


def decide(switch, student, teacher, image=None, gt=None, level=None, boxes=None, **options):
    """Decides on candidates, by default of one object on one level."""
    count = len(student)
    candidates = make_candidates(gt or [0] * count, level or [0] * count, image)
    targets = make_targets([[BOX]] if boxes is None else boxes)
    mask, record = switch(
        torch.tensor(student), torch.tensor(teacher), candidates, targets, 2, **options
    )
    return mask.tolist(), record


def test_the_higher_indicator_teaches():
    switch = RoleSwitch(indicator=StdMean())
    mask, record = decide(switch, SPREAD, TIGHT)
    assert mask == [True] * 3 and bool(record.student_teaches)
    assert record.student.item() == pytest.approx(0.5)
    assert record.teacher.item() == pytest.approx(0.1 / 2.1, rel=1e-4)
    assert record.student_share.item() == 1
    mask, record = decide(switch, TIGHT, SPREAD)
    assert mask == [False] * 3 and not bool(record.student_teaches)
    assert record.student_share.item() == 0
    assert decide(switch, SPREAD, SPREAD)[0] == [True] * 3, "a tie is the student's"


def test_scopes_decide_separately():
    # The higher indicator: object 0 student; image 1: object 1 teacher, object 2 student.
    student, teacher = SPREAD + TIGHT + SPREAD, TIGHT + SPREAD + TIGHT
    image, gt = [0] * 3 + [1] * 6, [0] * 3 + [1] * 3 + [2] * 3
    scene = {"image": image, "gt": gt, "boxes": [[BOX], [BOX, BOX]]}
    per_object = [True] * 3 + [False] * 3 + [True] * 3
    for scope in ("object", "level"):
        switch = RoleSwitch(indicator=StdMean(), scope=scope)
        mask, record = decide(switch, student, teacher, **scene)
        assert mask == per_object
        assert record.student_share.item() == pytest.approx(0.75), "images have 1 and 1/2"
    # Both networks have the same six costs in image 1: a tie is the student's.
    mask, record = decide(RoleSwitch(indicator=StdMean(), scope="image"), student, teacher, **scene)
    assert mask == [True] * 9 and record.student_share.item() == 1
    # Over both images the student has six spread and three tight costs, the teacher the reverse.
    mask, _ = decide(RoleSwitch(indicator=StdMean()), student, teacher, **scene)
    assert mask == [True] * 9


def test_levels_of_one_object_decide_separately():
    student, teacher = SPREAD + TIGHT, TIGHT + SPREAD
    switch = RoleSwitch(indicator=StdMean(), scope="level")
    mask, _ = decide(switch, student, teacher, level=[0] * 3 + [1] * 3)
    assert mask == [True] * 3 + [False] * 3


@scopes
@pytest.mark.parametrize("indicator", [StdMean(), Fisher()])
def test_order_of_candidates_and_scale_of_costs_do_not_matter(indicator, scope):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.rand(24, generator=generator) + 0.5 for _ in range(2))
    gt = torch.arange(24) // 6
    scene = {"gt": gt.tolist(), "image": (gt // 2).tolist(), "level": [0, 1] * 12}
    scene["boxes"] = [[BOX] * 2] * 2
    switch = RoleSwitch(indicator=indicator, scope=scope)
    mask, record = decide(switch, student.tolist(), teacher.tolist(), **scene)
    order = [i ^ 2 for i in range(24)]  # candidates of the same object and level change places
    order = [i if gt[i] == gt[j] else j for i, j in zip(order, range(24), strict=True)]
    permuted, _ = decide(switch, student[order].tolist(), teacher[order].tolist(), **scene)
    assert permuted == [mask[i] for i in order]
    if isinstance(indicator, StdMean):
        scaled, again = decide(switch, (8 * student).tolist(), (4 * teacher).tolist(), **scene)
        assert scaled == mask
        torch.testing.assert_close(again.student, record.student)


@pytest.mark.parametrize("indicator", [StdMean(), Fisher()])
def test_a_single_candidate_goes_to_the_strictly_cheaper_network(indicator):
    switch = RoleSwitch(indicator=indicator, scope="level")
    assert decide(switch, [1.0], [2.0])[0] == [True]
    assert decide(switch, [2.0], [1.0])[0] == [False]
    assert decide(switch, [1.0], [1.0])[0] == [False]


@pytest.mark.parametrize("previous", [False, True, torch.tensor(True)])
def test_the_role_stays_when_there_are_no_candidates(previous):
    switch = RoleSwitch(indicator=StdMean())
    for boxes in ([[BOX]], [[]]):
        mask, record = decide(switch, [], [], boxes=boxes, previous=previous)
        assert mask == [] and bool(record.student_teaches) == bool(previous)
        assert record.student_share.isnan() and record.student.isnan()
    assert decide(switch, TIGHT, SPREAD, previous=True)[0] == [False] * 3, (
        "not used where the costs decide"
    )


def test_a_switch_has_no_memory():
    switch = RoleSwitch(indicator=StdMean())
    first = decide(switch, SPREAD, TIGHT)
    decide(switch, TIGHT, SPREAD, forced=True)
    assert decide(switch, [], [])[1].student_teaches.item() is False
    assert decide(switch, SPREAD, TIGHT) == first


@scopes
@pytest.mark.parametrize("forced", [False, True])
def test_a_role_can_be_forced(scope, forced):
    switch = RoleSwitch(indicator=StdMean(), scope=scope)
    student, teacher = (TIGHT, SPREAD) if forced else (SPREAD, TIGHT)
    mask, record = decide(switch, student, teacher, forced=forced)
    assert mask == [forced] * 3
    assert record.student_share.item() == forced
    assert (record.student >= record.teacher).item() != forced, "the record has the indicators"
    assert decide(switch, student, teacher, forced=None)[0] == [not forced] * 3


@scopes
@pytest.mark.parametrize("indicator", [StdMean(), Fisher()])
def test_a_batch_without_objects_decides_nothing(scope, indicator):
    switch = RoleSwitch(indicator=indicator, scope=scope)
    mask, record = decide(switch, [], [], boxes=[[], []])
    assert mask == [] and record.student_share.isnan()
    assert not bool(record.student_teaches)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@scopes
def test_without_an_indicator_the_strictly_lower_mean_decides(scope, bad):
    # A cost that is not finite leaves no indicator; NaN is not lower than any mean.
    switch = RoleSwitch(indicator=StdMean(), scope=scope)
    mask, record = decide(switch, [bad, 1.0, 2.0], TIGHT)
    assert mask == [bad == -math.inf] * 3
    assert record.student.isnan() and record.teacher.isfinite()
    mask, _ = decide(switch, TIGHT, [bad, 1.0, 2.0])
    assert mask == [bad == math.inf] * 3


def test_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="scope='batch': choose one of iteration, image, object"):
        RoleSwitch(indicator=StdMean(), scope="batch")
