import pytest
import torch

from helpers import make_targets
from lad.assignment.indicators import Fisher, StdMean
from lad.assignment.switch import RoleSwitch
from lad.structures import Candidates

SPREAD = [1.0, 2.0, 3.0]  # std/mean 1/2
TIGHT = [2.0, 2.1, 2.2]


def candidates_of(image, gt, level) -> Candidates:
    columns = [torch.tensor(x, dtype=torch.int64) for x in (image, gt, level)]
    return Candidates(columns[0], torch.arange(len(gt)), columns[1], columns[2])


def decide(switch, student, teacher, image=None, gt=None, level=None, boxes=None) -> list[bool]:
    count = len(student)
    targets = make_targets(boxes or [[[0.0, 0, 50, 50]]])
    candidates = candidates_of(image or [0] * count, gt or [0] * count, level or [0] * count)
    return switch(torch.tensor(student), torch.tensor(teacher), candidates, targets, 2).tolist()


def test_the_higher_indicator_teaches():
    switch = RoleSwitch(indicator=StdMean())
    assert decide(switch, SPREAD, TIGHT) == [True] * 3
    assert switch.record.student.item() == pytest.approx(0.5)
    assert switch.record.student_share.item() == 1
    assert decide(switch, TIGHT, SPREAD) == [False] * 3
    assert decide(switch, SPREAD, SPREAD) == [True] * 3, "a tie is the student's"


def test_scopes_decide_separately():
    # Image 0, object 0: the student is fitter; image 1: object 1 the teacher, object 2 the student.
    student, teacher = SPREAD + TIGHT + SPREAD, TIGHT + SPREAD + TIGHT
    image, gt = [0] * 3 + [1] * 6, [0] * 3 + [1] * 3 + [2] * 3
    box = [0.0, 0.0, 50.0, 50.0]
    arguments = dict(image=image, gt=gt, boxes=[[box], [box, box]])
    by_object = decide(
        RoleSwitch(indicator=StdMean(), scope="object"), student, teacher, **arguments
    )
    assert by_object == [True] * 3 + [False] * 3 + [True] * 3
    switch = RoleSwitch(indicator=StdMean(), scope="level")
    assert decide(switch, student, teacher, **arguments) == by_object
    # images have shares 1 and 1/2
    assert switch.record.student_share.item() == pytest.approx(0.75)
    by_image = decide(RoleSwitch(indicator=StdMean(), scope="image"), student, teacher, **arguments)
    assert by_image[:3] == [True] * 3 and len(set(by_image[3:])) == 1


def test_levels_of_one_object_decide_separately():
    student, teacher = SPREAD + TIGHT, TIGHT + SPREAD
    switch = RoleSwitch(indicator=StdMean(), scope="level")
    assert decide(switch, student, teacher, level=[0] * 3 + [1] * 3) == [True] * 3 + [False] * 3


@pytest.mark.parametrize("indicator", [StdMean(), Fisher()])
def test_a_single_candidate_goes_to_the_strictly_cheaper_network(indicator):
    switch = RoleSwitch(indicator=indicator, scope="level")
    assert decide(switch, [1.0], [2.0]) == [True]
    assert decide(switch, [2.0], [1.0]) == [False]
    assert decide(switch, [1.0], [1.0]) == [False]


def test_roles_stay_when_there_are_no_candidates():
    switch = RoleSwitch(indicator=StdMean())
    decide(switch, SPREAD, TIGHT)
    assert decide(switch, [], []) == []
    assert bool(switch.student_taught) is True
    decide(switch, TIGHT, SPREAD)
    decide(switch, [], [], boxes=[[]])
    assert bool(switch.student_taught) is False


@pytest.mark.parametrize("scope", ["iteration", "image", "object", "level"])
def test_a_role_can_be_forced(scope):
    switch = RoleSwitch(indicator=StdMean(), scope=scope)
    switch.forced = False
    assert decide(switch, SPREAD, TIGHT) == [False] * 3
    switch.forced = None
    assert decide(switch, SPREAD, TIGHT) == [True] * 3


@pytest.mark.parametrize("scope", ["iteration", "image", "object", "level"])
def test_a_batch_without_objects_decides_nothing(scope):
    switch = RoleSwitch(indicator=Fisher(), scope=scope)
    assert decide(switch, [], [], boxes=[[], []]) == []


def test_costs_that_are_not_finite_do_not_crash():
    switch = RoleSwitch(indicator=StdMean())
    assert len(decide(switch, [float("nan"), 1.0, 2.0], TIGHT)) == 3


def test_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="scope='batch': choose one of iteration, image, object"):
        RoleSwitch(indicator=StdMean(), scope="batch")
