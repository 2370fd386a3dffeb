"""An inspection as plain numbers, for the page and the figures.

Boxes are [x0, y0, x1, y1] in pixels of the model's input.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lad.assignment.switch import Comparison
from lad.inspection.compute import Inspection, NetworkView


def number(value: float) -> float | None:
    """Returns five significant digits; None, JSON's null, for what is not finite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def objects_of(inspection: Inspection, image: int) -> list[dict[str, Any]]:
    """Returns class number and box of each object of an image."""
    targets = inspection.targets
    indices = (targets.image == image).nonzero()[:, 0].tolist()
    return [
        {"class": int(targets.classes[i]), "box": _box(targets.boxes[i].tolist())} for i in indices
    ]


def to_data(inspection: Inspection) -> dict[str, Any]:
    """Returns what the networks would assign and who would teach.

    Returns:
        ``decisions`` of scope iteration, and ``images``: each with ``decisions`` of scope image and
        ``objects``. An object has ``assigned`` (its anchors), ``costs`` by network and
        ``decisions`` of the scopes object and level. A decision is, by indicator, the networks'
        values and who ``teaches``; None where there are no candidates.
    """
    num_images = len(inspection.targets.image_sizes)
    return {
        "decisions": _decisions(inspection, "iteration", 0),
        "images": [
            {
                "decisions": _decisions(inspection, "image", image),
                "objects": [
                    _object(inspection, gt)
                    for gt in (inspection.targets.image == image).nonzero()[:, 0].tolist()
                ],
            }
            for image in range(num_images)
        ],
    }


def _decisions(inspection: Inspection, scope: str, group: int) -> dict[str, Any]:
    return {
        name: _decision(comparisons[scope], group)
        for name, comparisons in inspection.comparisons.items()
    }


def _decision(comparison: Comparison, group: int) -> dict[str, Any] | None:
    if not comparison.size[group]:
        return None
    return {
        "student": number(comparison.student[group].item()),
        "teacher": number(comparison.teacher[group].item()),
        "teaches": "student" if comparison.student_teaches[group] else "teacher",
    }


def _object(inspection: Inspection, gt: int) -> dict[str, Any]:
    num_levels = len(inspection.anchors.strides)
    rows = torch.zeros(0, dtype=torch.int64)
    if inspection.candidates is not None:
        rows = (inspection.candidates.gt == gt).nonzero()[:, 0]
    return {
        "assigned": _assigned(inspection, gt, rows),
        "costs": {
            name: _costs(inspection, view, gt, rows)
            for name, view in inspection.views.items()
            if view.costs is not None
        },
        "decisions": {
            "object": _decisions(inspection, "object", gt),
            "level": [
                _decisions(inspection, "level", gt * num_levels + level)
                for level in range(num_levels)
            ],
        },
    }


def _assigned(inspection: Inspection, gt: int, rows: Tensor) -> dict[str, Any]:
    """Returns the anchors that any network assigns to an object, a column for each value.

    ``rows`` are the object's candidates.
    """
    image, anchors = inspection.targets.image[gt], inspection.anchors
    by = {name: view.assignment.gt[image] == gt for name, view in inspection.views.items()}
    chosen = torch.stack(list(by.values())).any(dim=0).nonzero()[:, 0]
    levels = anchors.per_anchor(tuple(range(len(anchors.strides))))
    costs = {}
    if inspection.candidates is not None:
        # Candidates are in the order of their anchors.
        rows = rows[torch.searchsorted(inspection.candidates.anchor[rows], chosen)]
        costs = {
            name: _numbers(view.costs.cost[rows])
            for name, view in inspection.views.items()
            if view.costs is not None
        }
    return {
        "level": levels[chosen].tolist(),
        "box": [_box(x) for x in anchors.boxes[chosen].tolist()],
        "by": {name: mask[chosen].int().tolist() for name, mask in by.items()},
        "cost": costs,
    }


def _costs(inspection: Inspection, view: NetworkView, gt: int, rows: Tensor) -> dict[str, Any]:
    """Returns the costs in an object's mixture, or of all its candidates if there is none.

    ``cut`` is the highest cost of a positive.
    """
    assert view.costs is not None and inspection.candidates is not None
    if view.chosen is not None:
        rows = view.chosen[gt][view.chosen[gt] >= 0]
    rows = rows[view.costs.cost[rows].argsort(stable=True)]
    cost = view.costs.cost[rows]
    labels = view.assignment.gt[inspection.targets.image[gt]]
    positive = labels[inspection.candidates.anchor[rows]] == gt
    fit = None
    if view.fit is not None and len(cost):
        fit = {
            "means": _numbers(view.fit.means[gt]),
            "deviations": _numbers(view.fit.variances[gt].sqrt()),
            "weights": _numbers(view.fit.weights[gt]),
        }
    return {
        "values": _numbers(cost),
        "positive": positive.int().tolist(),
        "fit": fit,
        "cut": number(cost[positive].max().item()) if positive.any() else None,
    }


def _numbers(values: Tensor) -> list[float | None]:
    return [number(x) for x in values.tolist()]


def _box(box: list[float]) -> list[float]:
    return [round(x, 1) for x in box]
