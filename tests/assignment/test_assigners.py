import math

import pytest
import torch

from helpers import make_anchors, make_candidates, make_targets
from lad.assignment.assigners import (
    LabelAssigner,
    cheapest_per_level,
    cheapest_per_object,
    label_anchors,
    resolve_conflicts,
)
from lad.assignment.costs import NoCost
from lad.structures import CandidateCosts, Candidates

ANCHORS = make_anchors()
TWO = make_targets([[[0.0, 0, 50, 50], [9.0, 9, 99, 99]]])
DEVICES = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
        ),
    ],
)


@DEVICES
def test_the_cheapest_worked_by_hand(device):
    # The example of `cheapest_per_level`.
    cost = torch.tensor([5.0, 1.0, 2.0, 4.0], device=device)
    candidates = make_candidates([0] * 4, [0, 0, 0, 1]).to(device)
    assert cheapest_per_level(cost, candidates, 1, 2, 2).tolist() == [[1, 2, 3, -1]]
    assert cheapest_per_object(cost, candidates, 1, 2).tolist() == [[1, 2]]
    assert cheapest_per_object(cost, candidates, 2, 5).tolist() == [[1, 2, 3, 0, -1], [-1] * 5]


def test_the_cheapest_of_all_levels_are_ascending():
    cost = torch.tensor([3.0, 5.0, 1.0, 4.0])
    chosen = cheapest_per_level(cost, make_candidates([0] * 4, [0, 0, 1, 1]), 1, 2, 2)
    assert chosen.tolist() == [[2, 0, 3, 1]]


@DEVICES
def test_equal_costs_keep_the_candidates_order(device):
    candidates = make_candidates([0] * 3 + [1] * 3, [0] * 6).to(device)
    chosen = cheapest_per_level(torch.ones(6, device=device), candidates, 2, 1, 2)
    assert chosen.tolist() == [[0, 1], [3, 4]]


def test_zeros_of_both_signs_tie_and_infinite_costs_are_ordered():
    cost = torch.tensor([0.5, -0.0, -3.0, 0.0, -1.0, -math.inf, 1e38])
    chosen = cheapest_per_level(cost, make_candidates([0] * 7, [0] * 7), 1, 1, 7)
    assert chosen.tolist() == [[5, 2, 4, 1, 3, 0, 6]]


@DEVICES
def test_the_cheapest_are_found_in_candidates_of_any_order(device):
    generator = torch.Generator().manual_seed(0)
    gt, level = (torch.randint(n, (60,), generator=generator) for n in (4, 3))
    cost = torch.rand(60, generator=generator)
    candidates = make_candidates(gt.tolist(), level.tolist()).to(device)
    chosen = cheapest_per_level(cost.to(device), candidates, 4, 3, topk=3).cpu()
    for index in range(4):
        expected = []
        for number in range(3):
            at = ((gt == index) & (level == number)).nonzero()[:, 0]
            expected += at[cost[at].argsort()][:3].tolist()
        expected.sort(key=lambda i: cost[i])
        assert chosen[index][chosen[index] >= 0].tolist() == expected


def test_no_candidates_have_no_cheapest():
    chosen = cheapest_per_level(torch.zeros(0), make_candidates([], []), 2, 3, 4)
    assert chosen.tolist() == [[-1] * 12] * 2
    assert cheapest_per_level(torch.zeros(0), make_candidates([], []), 0, 3, 4).shape == (0, 12)


def claims(value, gt, anchor, positive=None):
    """What is left of claims on anchors of one image."""
    candidates = Candidates(*(torch.tensor(x) for x in ([0] * len(gt), anchor, gt, [0] * len(gt))))
    chosen = torch.arange(len(gt))
    mask = torch.tensor(positive or [True] * len(gt))
    value = torch.tensor(value)
    return resolve_conflicts(mask, chosen, value, candidates, ANCHORS, TWO).tolist()


def test_conflicts_worked_by_hand():
    # Objects 0 and 1 both claim anchors 5 and 6; 7 has one claim.
    gt, anchor = [0, 0, 1, 1, 1], [5, 6, 5, 6, 7]
    assert claims([1.0, 4.0, 2.0, 3.0, 9.0], gt, anchor) == [True, False, False, True, True]
    assert claims([2.0] * 5, gt, anchor) == [True, True, False, False, True], "the earlier object"
    positive = [False, True, True, True, False]
    assert claims([1.0, 4.0, 2.0, 3.0, 9.0], gt, anchor, positive) == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_conflicts_do_not_depend_on_the_order_of_claims():
    generator = torch.Generator().manual_seed(0)
    gt, anchor = (torch.randint(n, (40,), generator=generator) for n in (2, 9))
    pairs = torch.unique(torch.stack([gt, anchor]), dim=1)
    value = torch.rand(pairs.shape[1], generator=generator)
    order = torch.randperm(pairs.shape[1], generator=generator)
    left = claims(value.tolist(), *pairs.tolist())
    permuted = claims(value[order].tolist(), *pairs[:, order].tolist())
    assert permuted == [left[i] for i in order]
    kept = pairs[1][torch.tensor(left)]
    assert len(kept.unique()) == len(kept) == len(pairs[1].unique()), "each anchor once"


def test_no_claims_have_no_conflicts():
    none = make_candidates([], [])
    chosen = torch.full((2, 3), -1)
    left = resolve_conflicts(chosen >= 0, chosen, torch.zeros(0), none, ANCHORS, TWO)
    assert left.tolist() == [[False] * 3] * 2


def test_matched_objects_are_given_with_the_labels():
    targets = make_targets([[], [[0.0, 0, 50, 50]]])
    candidates = Candidates(*(torch.tensor([x]) for x in (1, 7, 0, 0)))
    result = label_anchors(
        torch.tensor([True]), torch.tensor([0]), candidates, ANCHORS, targets, num_classes=3
    )
    assert result.gt[1, 7] == 0 and result.labels[1, 7] == targets.classes[0]
    assert (result.gt >= 0).sum() == 1 and (result.labels[0] == 3).all()


def test_padding_is_ignored_and_the_rest_is_background():
    targets = make_targets([[], []], [(96, 128), (32, 32)])
    none = torch.zeros(0, dtype=torch.int64)
    result = label_anchors(none.bool(), none, make_candidates([], []), ANCHORS, targets, 3)
    assert (result.labels[0] == 3).all()
    assert (result.labels[1] == 3).sum() == 16 + 4 + 1 and (result.labels[1] < 3).sum() > 21
    assert (result.gt == -1).all()


class TakeNegativeCosts(LabelAssigner):
    """Candidates of negative cost are positive."""

    def candidates(self, anchors, targets):
        return make_candidates([0] * 4, [0] * 4)

    def choose(self, costs, candidates, anchors, targets):
        self.seen = costs
        return torch.arange(len(costs.cost)), costs.cost < 0


def test_costs_that_are_not_finite_count_as_the_lowest():
    assigner = TakeNegativeCosts(cost=NoCost(), num_classes=3)
    cost = torch.tensor([1.0, math.nan, math.inf, -math.inf])
    costs = CandidateCosts(cost, torch.tensor([0.5, math.nan, 0.25, 1.0]))
    result = assigner.assign(costs, assigner.candidates(ANCHORS, TWO), ANCHORS, TWO)
    assert assigner.seen.cost.tolist() == [1.0] + [-math.inf] * 3
    assert assigner.seen.iou.tolist() == [0.5, 0.0, 0.25, 1.0]
    assert result.gt[0, :4].tolist() == [-1, 0, 0, 0]


def test_learned_assignments_keep_their_costs():
    assigner = TakeNegativeCosts(cost=NoCost(), num_classes=3)
    costs = CandidateCosts(torch.tensor([1.0, math.nan, -1.0, 2.0]))
    candidates = assigner.candidates(ANCHORS, TWO)
    assert assigner.is_static and assigner.assign(costs, candidates, ANCHORS, TWO).cost is None
    assigner.cost = object()  # any other cost
    kept = assigner.assign(costs, candidates, ANCHORS, TWO).cost
    assert not assigner.is_static and kept is costs.cost
