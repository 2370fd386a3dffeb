import warnings

import pytest
import torch

from helpers import (
    generic,
    make_anchors,
    make_candidates,
    make_predictions,
    make_targets,
    random_boxes,
)
from lad.assignment.costs import PAACost
from lad.assignment.paa import PAAAssigner
from lad.structures import CandidateCosts

ANCHORS = make_anchors()
TWO = make_targets([[[0.0, 0, 50, 50], [9.0, 9, 99, 99]]])


def assigner(**options) -> PAAAssigner:
    return PAAAssigner(cost=PAACost(), num_classes=3, **options)


def labels_for(cost: list[float], *, level=None, gt=None, **options) -> list[int]:
    """Labels of the first anchors, candidates of one object unless ``gt`` says otherwise."""
    candidates = make_candidates(gt or [0] * len(cost), level or [0] * len(cost))
    costs = CandidateCosts(torch.tensor(cost))
    result = assigner(**options).assign(costs, candidates, ANCHORS, TWO)
    return result.labels[0, : len(cost)].tolist()


def test_the_lower_cluster_up_to_its_peak_is_positive():
    # densest in the lower cluster {1.0, 1.1, 1.2} is its middle; 1.2 lies beyond the peak
    assert labels_for([5.0, 1.1, 1.0, 5.2, 1.2, 4.8]) == [3, 0, 0, 3, 3, 3]


def test_the_papers_separation_is_the_lower_mean():
    costs = [5.0, 1.1, 1.0, 5.2, 1.5, 4.8]  # lower mean 1.2
    assert labels_for(costs, separation="mean") == [3, 0, 0, 3, 3, 3]


def test_only_the_cheapest_of_each_level_take_part():
    costs = [1.0, 1.1, 1.3, 5.0, 5.1]  # lower mean 1.13, of the two cheapest 1.05
    levels = [0, 0, 0, 1, 1]
    assert labels_for(costs, level=levels, separation="mean") == [0, 0, 3, 3, 3]
    assert labels_for(costs, level=levels, topk=2, separation="mean") == [0, 3, 3, 3, 3]


def test_of_equal_densities_the_first_counts():
    assert labels_for([2.0] * 4) == [0, 3, 3, 3]


def test_a_single_candidate_is_positive_unless_official():
    assert labels_for([4.2]) == [0]
    assert labels_for([4.2], single_candidate_positive=False) == [3]


def test_objects_do_not_disturb_each_other():
    first, second = [1.0, 1.1, 5.0], [9.0, 2.0, 2.2, 9.5]
    both = labels_for(first + second, gt=[0] * 3 + [1] * 4)
    assert both[:3] == labels_for(first)
    assert [x if x == 3 else 0 for x in both[3:]] == labels_for(second)


@pytest.mark.parametrize("separation", ["peak", "mean"])
def test_permuting_and_scaling_costs_changes_nothing(separation):
    costs = torch.tensor([5.0, 1.1, 1.0, 5.2, 1.2, 4.8])
    labels = labels_for(costs.tolist(), separation=separation)
    order = [3, 1, 5, 0, 4, 2]
    permuted = labels_for(costs[order].tolist(), separation=separation)
    assert permuted == [labels[i] for i in order]
    assert labels_for((2 * costs).tolist(), separation=separation) == labels
    assert labels_for((costs + 3).tolist(), separation=separation) == labels


@pytest.mark.parametrize("separation", ["peak", "mean"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_costs_that_are_not_finite_become_positives_to_show_in_the_losses(bad, separation):
    clusters = [5.0, 1.1, 1.0, 5.2, 1.2, 4.8]
    expected = labels_for(clusters, separation=separation)
    assert labels_for([bad, *clusters], separation=separation) == [0, *expected]
    assert labels_for([bad] * 3, separation=separation) == [0, 0, 0]


def test_the_scikit_learn_backend_gives_the_same_labels():
    targets = make_targets([random_boxes(7, 96, 128), random_boxes(5, 96, 128, 1)])
    candidates = assigner().candidates(ANCHORS, targets)
    costs = PAACost()(make_predictions(2, ANCHORS), targets, candidates)
    ours = assigner().assign(costs, candidates, ANCHORS, targets)
    reference = assigner(mixture="sklearn").assign(costs, candidates, ANCHORS, targets)
    assert torch.equal(ours.labels, reference.labels) and (ours.gt >= 0).any()


def test_regular_and_generic_anchors_give_the_same_labels():
    targets = make_targets([random_boxes(9, 96, 128), [], random_boxes(5, 96, 128, 1)])
    results = []
    for anchors in (ANCHORS, generic(ANCHORS)):
        candidates = assigner().candidates(anchors, targets)
        costs = PAACost()(make_predictions(3, anchors), targets, candidates)
        results.append(assigner().assign(costs, candidates, anchors, targets))
    assert torch.equal(results[0].labels, results[1].labels)
    assert torch.equal(results[0].gt, results[1].gt)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_waited_for_once():
    targets = make_targets([random_boxes(9, 96, 128)])
    expected = None
    for device in ("cpu", "cuda"):
        anchors = ANCHORS._replace(boxes=ANCHORS.boxes.to(device))
        predictions = make_predictions(1, anchors).detach()._map(lambda x, to=device: x.to(to))
        paa = assigner()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            candidates = paa.candidates(anchors, targets)
            on_device = targets.to(device)
            costs = paa.cost(predictions, on_device, candidates)
            labels = paa.assign(costs, candidates, anchors, on_device).labels
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
        ({"min_iou": 0}, "min_iou=0: it has to be above 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        assigner(**options)
