import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import make_anchors, make_predictions, make_targets, random_boxes
from lad.assignment import mixture
from lad.assignment.assigners import PAAAssigner, cheapest_per_level
from lad.assignment.costs import PAACost
from lad.structures import Candidates, DensePredictions

ANCHORS = make_anchors()
PACKAGE = Path(mixture.__file__).parents[1]


def assigner(**options) -> PAAAssigner:
    return PAAAssigner(cost=PAACost(), num_classes=3, **options)


def candidates_of(gt: list[int], level: list[int]) -> Candidates:
    """Candidates of one image on the first anchors, in order."""
    gt_tensor = torch.tensor(gt)
    return Candidates(gt_tensor * 0, torch.arange(len(gt)), gt_tensor, torch.tensor(level))


def labels_for(cost: list[float], *, targets=None, level=None, gt=None, **options) -> list[int]:
    """Labels of the first anchors, candidates of one object unless ``gt`` says otherwise."""
    candidates = candidates_of(gt or [0] * len(cost), level or [0] * len(cost))
    targets = targets or make_targets([[[0.0, 0, 50, 50], [9.0, 9, 99, 99]]])
    result = assigner(**options).assign(torch.tensor(cost), candidates, ANCHORS, targets)
    return result.labels[0, : len(cost)].tolist()


def test_the_lower_cluster_up_to_its_peak_is_positive():
    # densest in the lower cluster {1.0, 1.1, 1.2} is its middle; 1.2 lies beyond the peak
    assert labels_for([5.0, 1.1, 1.0, 5.2, 1.2, 4.8]) == [3, 0, 0, 3, 3, 3]


def test_the_papers_separation_is_the_lower_mean():
    costs = [5.0, 1.1, 1.0, 5.2, 1.5, 4.8]  # lower mean 1.2
    assert labels_for(costs, separation="mean") == [3, 0, 0, 3, 3, 3]


def test_only_the_cheapest_of_each_level_take_part():
    # Level 0 has three cheap candidates, but topk=2; level 1 has the dear ones.
    costs = [1.0, 1.1, 1.2, 5.0, 5.1]
    labels = labels_for(costs, level=[0, 0, 0, 1, 1], topk=2, separation="mean")
    assert labels[2] == 3
    chosen = cheapest_per_level(
        torch.tensor(costs), candidates_of([0] * 5, [0, 0, 0, 1, 1]), 1, 2, 2
    )
    assert chosen.tolist() == [[0, 1, 3, 4]]


def test_equal_costs_keep_the_candidates_order():
    chosen = cheapest_per_level(torch.ones(6), candidates_of([0] * 3 + [1] * 3, [0] * 6), 2, 1, 2)
    assert chosen.tolist() == [[0, 1], [3, 4]]
    assert labels_for([2.0] * 4) == [0, 3, 3, 3], "equal densities take the lowest cost, the first"


def test_negative_zero_and_negative_costs_are_ordered():
    cost = torch.tensor([0.5, -0.0, -3.0, 0.0, -1.0])
    chosen = cheapest_per_level(cost, candidates_of([0] * 5, [0] * 5), 1, 1, 5)
    assert chosen.tolist() == [[2, 4, 1, 3, 0]]


def test_a_single_candidate_is_positive_unless_official():
    assert labels_for([4.2]) == [0]
    assert labels_for([4.2], single_candidate_positive=False) == [3]


def test_objects_do_not_disturb_each_other():
    first, second = [1.0, 1.1, 5.0], [9.0, 2.0, 2.2, 9.5]
    both = labels_for(first + second, gt=[0] * 3 + [1] * 4)
    assert both[:3] == labels_for(first)
    assert [x if x == 3 else 0 for x in both[3:]] == labels_for(second)


def test_scaling_and_permuting_costs_changes_nothing():
    costs = torch.tensor([5.0, 1.1, 1.0, 5.2, 1.2, 4.8])
    labels = labels_for(costs.tolist())
    order = [3, 1, 5, 0, 4, 2]
    assert labels_for(costs[order].tolist()) == [labels[i] for i in order]


def test_matched_objects_stand_beside_the_labels():
    targets = make_targets([[], [[0.0, 0, 50, 50]]])
    candidates = Candidates(*(torch.tensor([x]) for x in (1, 7, 0, 0)))
    result = assigner().assign(torch.tensor([1.0]), candidates, ANCHORS, targets)
    assert result.gt[1, 7] == 0 and result.labels[1, 7] == targets.classes[0]
    assert (result.gt >= 0).sum() == 1 and (result.labels[0] == 3).all()


def test_padding_is_ignored_and_no_objects_are_all_background():
    targets = make_targets([[], []], [(96, 128), (32, 32)])
    empty = Candidates(*(torch.zeros(0, dtype=torch.int64) for _ in range(4)))
    result = assigner().assign(torch.zeros(0), empty, ANCHORS, targets)
    assert (result.labels[0] == 3).all()
    assert (result.labels[1] == 3).sum() == 16 + 4 + 1 and (result.gt == -1).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_costs_that_are_not_finite_become_positives_to_show_in_the_losses(bad):
    labels = labels_for([1.0, bad, 5.0])
    assert labels[1] == 0
    assert labels_for([bad] * 3) == [0, 0, 0]


def test_the_scikit_learn_backend_gives_the_same_labels():
    targets = make_targets([random_boxes(7, 96, 128), random_boxes(5, 96, 128, 1)])
    candidates = assigner().candidates(ANCHORS, targets)
    cost = PAACost()(make_predictions(2, ANCHORS), ANCHORS, targets, candidates)
    ours = assigner().assign(cost, candidates, ANCHORS, targets)
    reference = assigner(mixture="sklearn").assign(cost, candidates, ANCHORS, targets)
    assert torch.equal(ours.labels, reference.labels)
    assert (ours.labels == 3).any() and (ours.gt >= 0).any()


class CountOperations(TorchDispatchMode):
    """Counts every tensor operation."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += 1
        return function(*args, **(kwargs or {}))


class CountLines:
    """Counts the lines of the package that run: a loop over objects, in NumPy too, has more."""

    number = 0

    def __enter__(self):
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(str(PACKAGE)):
            return None
        self.number += event == "line"
        return self.trace


@pytest.mark.parametrize("fit", [mixture.fit_mixtures_numpy, mixture.fit_mixtures_torch])
def test_number_of_operations_does_not_depend_on_the_number_of_objects(monkeypatch, fit):
    monkeypatch.setattr(mixture, "MAX_ITERATIONS", 3)
    monkeypatch.setattr(mixture, "TOLERANCE", 0.0)
    numbers = []
    for count in (1, 60):
        targets = make_targets([random_boxes(count, 96, 128), random_boxes(count, 96, 128, 1)])
        predictions = make_predictions(2, ANCHORS).detach()
        paa = assigner()
        paa.fit = fit
        with CountOperations() as operations, CountLines() as lines:
            candidates = paa.candidates(ANCHORS, targets)
            cost = paa.cost(predictions, ANCHORS, targets, candidates)
            paa.assign(cost, candidates, ANCHORS, targets)
        numbers.append((operations.number, lines.number))
    assert numbers[0] == numbers[1] and min(numbers[0]) > 50


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_waited_for_once():
    targets = make_targets([random_boxes(9, 96, 128)])
    predictions = make_predictions(1, ANCHORS).detach()
    expected = None
    for device in ("cpu", "cuda"):
        anchors = ANCHORS._replace(boxes=ANCHORS.boxes.to(device))
        moved = DensePredictions(
            *(x.to(device) if isinstance(x, torch.Tensor) else x for x in predictions)
        )
        paa = assigner()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            candidates = paa.candidates(anchors, targets).to(device)
            on_device = targets.to(device)
            cost = paa.cost(moved, anchors, on_device, candidates)
            labels = paa.assign(cost, candidates, anchors, on_device).labels
        torch.cuda.set_sync_debug_mode("default")
        waits = [x for x in caught if "synchronizing" in str(x.message)]
        assert len(waits) == (device == "cuda")
        expected = labels if expected is None else expected
        assert torch.equal(labels.cpu(), expected)
        same = paa.candidates(anchors, on_device)  # waits
        assert all(torch.equal(x, y) for x, y in zip(same, candidates, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separation": "median"}, "separation='median': choose 'peak' or 'mean'"),
        ({"mixture": "cuda"}, "mixture='cuda': choose 'batched' or 'sklearn'"),
        ({"topk": 0}, "topk=0: at least one"),
        ({"min_iou": 0}, "min_iou=0: candidates overlap"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        assigner(**options)


def test_the_cheapest_are_found_in_candidates_of_any_order():
    generator = torch.Generator().manual_seed(0)
    gt, level = (torch.randint(n, (60,), generator=generator) for n in (4, 3))
    cost = torch.rand(60, generator=generator)
    candidates = Candidates(gt * 0, torch.arange(60), gt, level)
    chosen = cheapest_per_level(cost, candidates, 4, 3, topk=3)
    for index in range(4):
        expected = []
        for number in range(3):
            at = ((gt == index) & (level == number)).nonzero()[:, 0]
            expected += at[cost[at].argsort()][:3].tolist()
        assert sorted(chosen[index][chosen[index] >= 0].tolist()) == sorted(expected)
