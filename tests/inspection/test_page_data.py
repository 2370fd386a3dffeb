"""The numbers that the page embeds."""

import json
import math

import pytest
import torch

from helpers import make_anchors, make_batch, make_candidates, make_paa, make_targets
from lad.assignment.costs import PAACost
from lad.assignment.indicators import StdMean
from lad.assignment.paa import PAAAssigner
from lad.assignment.simota import SimOTAAssigner
from lad.assignment.switch import SCOPES, RoleSwitch
from lad.inspection.compute import Inspection, NetworkView, inspect_batch
from lad.inspection.data import number, objects_of, to_data
from lad.modeling.distillation import LAD
from lad.structures import CandidateCosts

# The lower cluster's middle is densest: 1.0 and 1.1 are positive.
STUDENT = [5.0, 1.1, 1.0, 5.2, 1.2, 4.8]
TEACHER = [1.1, 5.0, 1.0, 5.2, 1.2, 4.8]


@pytest.fixture
def inspection() -> Inspection:
    """One object whose candidates are the first six anchors, on two levels of the switch."""
    anchors, targets = make_anchors(), make_targets([[[0.0, 0, 50, 50]]])
    candidates = make_candidates([0] * 6, [0] * 6)
    assigner = PAAAssigner(cost=PAACost(), num_classes=3)
    views = {}
    for name, cost in (("student", STUDENT), ("teacher", TEACHER)):
        costs = CandidateCosts(torch.tensor(cost))
        chosen, _ = assigner.choose(costs, candidates, anchors, targets)
        _, fit = assigner.mixtures(costs.cost, chosen)
        assignment = assigner.assign(costs, candidates, anchors, targets)
        views[name] = NetworkView(assignment, costs, chosen, fit)
    comparisons = {}
    for scope in SCOPES:
        switch = RoleSwitch(indicator=StdMean(), scope=scope)
        groups = switch.groups(candidates, targets, 3)
        costs = [view.costs.cost for view in views.values()]
        comparisons[scope] = switch.compare(*costs, candidates, groups)
    return Inspection(anchors, targets, candidates, views, {"std/mean": comparisons})


def test_golden_numbers(inspection):
    data = to_data(inspection)
    (image,) = data["images"]
    (found,) = image["objects"]
    assert found["costs"]["student"] == {
        "values": [1.0, 1.1, 1.2, 4.8, 5.0, 5.2],
        "positive": [1, 1, 0, 0, 0, 0],
        "fit": {
            "means": pytest.approx([1.1, 5.0]),
            # variances 0.02 / 3 and 0.08 / 3, and 1e-6 of regularization
            "deviations": pytest.approx([0.08166, 0.1633], abs=1e-4),
            "weights": [0.5, 0.5],
        },
        "cut": 1.1,
    }
    # Anchors 0 (teacher), 1 (student) and 2 (both): side 64, centers at 0, 8 and 16.
    assert found["assigned"] == {
        "level": [0, 0, 0],
        "box": [[-32.0, -32.0, 32.0, 32.0], [-24.0, -32.0, 40.0, 32.0], [-16.0, -32.0, 48.0, 32.0]],
        "by": {"student": [0, 1, 1], "teacher": [1, 0, 1]},
        "cost": {"student": [5.0, 1.1, 1.0], "teacher": [1.1, 5.0, 1.0]},
    }
    # The same costs in another order: equal indicators, and a tie is the student's.
    ratio = torch.tensor(STUDENT).std().item() / 3.05
    decision = {"student": pytest.approx(ratio, 1e-4), "teacher": pytest.approx(ratio, 1e-4)}
    expected = {"std/mean": {**decision, "teaches": "student"}}
    assert data["decisions"] == image["decisions"] == found["decisions"]["object"] == expected
    assert found["decisions"]["level"] == [expected, {"std/mean": None}, {"std/mean": None}]
    assert objects_of(inspection, 0) == [{"class": 0, "box": [0, 0, 50, 50]}]


def test_a_real_model_gives_valid_json():
    batch = make_batch([[], [[5.0, 5, 40, 50], [50.0, 10, 90, 60]]])
    model = LAD(student=make_paa(0), teacher=make_paa(1))
    data = json.loads(json.dumps(to_data(inspect_batch(model, batch)), allow_nan=False))
    empty, image = data["images"]
    assert empty == {"decisions": {"std/mean": None, "Fisher": None}, "objects": []}
    for found in image["objects"]:
        assert len(found["assigned"]["level"]) > 0
        for name, costs in found["costs"].items():
            assert costs["values"] == sorted(costs["values"])
            positives = [x for x, p in zip(costs["values"], costs["positive"], strict=True) if p]
            assert costs["cut"] == max(positives)
            assert sum(found["assigned"]["by"][name]) == len(positives)


def test_without_a_mixture_all_candidates_are_shown():
    model = make_paa(assigner=SimOTAAssigner(num_classes=3))
    inspection = inspect_batch(model, make_batch([[[5.0, 5, 40, 50]]]))
    (found,) = to_data(inspection)["images"][0]["objects"]
    costs = found["costs"]["detector"]
    assert costs["fit"] is None
    assert len(costs["values"]) == len(inspection.candidates.gt)
    assert found["decisions"]["object"] == {}


def test_numbers_that_json_lacks_are_null():
    assert number(1.234567) == 1.2346
    assert number(math.nan) is None and number(math.inf) is None
