import pytest
import torch

from helpers import make_candidates, make_targets
from lad.assignment.indicators import Fisher, StdMean, mean_and_std
from lad.assignment.switch import RoleSwitch


def setup(gt: list[int], level: list[int], scope: str):
    """Candidates of objects in one image, and the scope's groups."""
    candidates = make_candidates(gt, level)
    targets = make_targets([[[0.0, 0, 50, 50], [9.0, 9, 99, 99]]])
    switch = RoleSwitch(indicator=StdMean(), scope=scope)
    return candidates, switch.groups(candidates, targets, 2)


def value(indicator, cost: list[float], gt, level, scope) -> list[float]:
    candidates, groups = setup(gt, level, scope)
    return indicator.value(indicator.sums(torch.tensor(cost), candidates, groups)).tolist()


def test_std_over_mean_by_hand():
    # costs 1, 2, 3: mean 2, unbiased deviation 1
    assert value(StdMean(), [1.0, 2.0, 3.0], [0] * 3, [0] * 3, "iteration") == [0.5]
    by_object = value(StdMean(), [1.0, 2.0, 3.0, 4.0, 4.0], [0] * 3 + [1] * 2, [0] * 5, "object")
    assert by_object == pytest.approx([0.5, 0.0])


def test_std_over_mean_does_not_depend_on_the_costs_scale_or_order():
    costs = torch.rand(20) + 0.5
    gt, level = [0] * 20, [0] * 20
    expected = (costs.double().std() / costs.double().mean()).item()
    assert value(StdMean(), costs.tolist(), gt, level, "image") == pytest.approx([expected])
    scaled = (7 * costs.flip(0)).tolist()
    assert value(StdMean(), scaled, gt, level, "image") == pytest.approx([expected], rel=1e-6)


def test_fisher_by_hand():
    # Two tight pairs at 1 and 3: means 1 and 3, variances 0.01 + 1e-6 each: 4 / 0.020002
    costs = [0.9, 1.1, 2.9, 3.1]
    fisher = value(Fisher(), costs, [0] * 4, [0] * 4, "iteration")
    assert fisher == pytest.approx([4 / 0.020002], rel=1e-4)


def test_fisher_of_an_image_is_the_mean_of_its_objects_and_a_level_has_its_objects():
    costs = [0.9, 1.1, 2.9, 3.1, 1.8, 2.2, 5.8, 6.2]
    gt, level = [0] * 4 + [1] * 4, [0, 0, 1, 1] * 2
    first, second = value(Fisher(), costs, gt, level, "object")
    assert second == pytest.approx(16 / 0.080002, rel=1e-4)
    assert value(Fisher(), costs, gt, level, "image") == pytest.approx([(first + second) / 2])
    assert value(Fisher(), costs, gt, level, "level") == pytest.approx(
        [first, first, second, second]
    )


def test_fisher_takes_the_cheapest_of_each_level():
    costs = [0.9, 1.1, 2.9, 3.1, 50.0]
    few = value(Fisher(topk=4), costs, [0] * 5, [0] * 5, "iteration")
    assert few == pytest.approx([4 / 0.020002], rel=1e-4)


@pytest.mark.parametrize("indicator", [StdMean(), Fisher()])
def test_too_few_candidates_have_no_indicator(indicator):
    single = value(indicator, [2.0], [0], [0], "object")
    assert all(x != x for x in single)
    assert all(x != x for x in value(indicator, [], [], [], "iteration"))


@pytest.mark.parametrize("indicator", [StdMean(), Fisher()])
def test_a_diverged_object_leaves_the_others_alone(indicator):
    costs = [0.9, 1.1, 2.9, 3.1]
    alone = value(indicator, costs, [0] * 4, [0] * 4, "object")
    both = value(indicator, [*costs, float("nan"), 2.0], [0] * 4 + [1] * 2, [0] * 6, "object")
    assert both[0] == alone[0]


def test_mean_and_std_worked_by_hand():
    # 1, 2, 3: count 3, sum 6, sum of squares 14; a single 5; nothing
    mean, std = mean_and_std(torch.tensor([[3.0, 6, 14], [1, 5, 25], [0, 0, 0]]))
    assert mean.tolist()[:2] == [2, 5] and mean[2].isnan()
    assert std.tolist()[0] == 1 and std[1:].isnan().all()


@pytest.mark.parametrize("indicator", [StdMean(), Fisher()])
def test_sums_of_two_halves_add_up(indicator):
    candidates, groups = setup([0] * 4 + [1] * 4, [0] * 8, "iteration")
    cost = torch.tensor([0.9, 1.1, 2.9, 3.1, 1.8, 2.2, 5.8, 6.2])
    halves = []
    for half in (slice(0, 4), slice(4, 8)):
        part, part_groups = setup([0] * 4, [0] * 4, "iteration")
        halves.append(indicator.sums(cost[half], part, part_groups))
    torch.testing.assert_close(sum(halves), indicator.sums(cost, candidates, groups))
