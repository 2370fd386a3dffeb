"""What each network of a model would assign on a batch, and which of them would teach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from lad.assignment.assigners import LabelAssigner
from lad.assignment.indicators import Fisher, Indicator, StdMean
from lad.assignment.mixture import MixtureFit
from lad.assignment.paa import PAAAssigner
from lad.assignment.switch import SCOPES, Comparison, RoleSwitch
from lad.modeling.batch import ground_truth
from lad.modeling.distillation import LAD, NETWORKS, Distillation, SoftLabel, known_costs
from lad.modeling.network import DenseNetwork, NetworkOutput, model_info
from lad.modeling.rcnn import RCNN
from lad.structures import (
    Anchors,
    Assignment,
    CandidateCosts,
    Candidates,
    Targets,
)


class NetworkView(NamedTuple):
    """What one network would assign.

    Attributes:
        assignment: the labels.
        costs: of the P candidates; None if the rule uses no predictions.
        chosen: (G, T) indices into the candidates that enter each object's mixture, -1 for none;
            None without mixtures.
        fit: the G mixtures; None without.
    """

    assignment: Assignment
    costs: CandidateCosts | None = None
    chosen: Tensor | None = None
    fit: MixtureFit | None = None


class Inspection(NamedTuple):
    """What the networks of a model would assign on a batch.

    Attributes:
        anchors: R anchors.
        targets: G objects of N images.
        candidates: P candidates; None if the rule uses no predictions.
        views: by network: "student" and "teacher" if a teacher's costs can be compared, else
            "student", or "detector" of a model with one network.
        comparisons: by name of the indicator and scope of a `RoleSwitch`; empty without a teacher.
    """

    anchors: Anchors
    targets: Targets
    candidates: Candidates | None
    views: dict[str, NetworkView]
    comparisons: dict[str, dict[str, Comparison]]


class TrainingRule(NamedTuple):
    """Whose labels a model is trained on.

    Attributes:
        text: a sentence.
        scope: of the model's switch; None without one.
        indicator: name of the switch's indicator, as in `Inspection.comparisons`.
    """

    text: str
    scope: str | None = None
    indicator: str | None = None


def check_inspectable(model: nn.Module) -> None:
    """Raises ValueError unless the model assigns labels to anchors."""
    _main_network(model)


def _main_network(model: nn.Module) -> DenseNetwork:
    networks = model_info(model).networks
    network = networks.get("student", networks.get(""))
    if not isinstance(network, DenseNetwork) or isinstance(network, RCNN):
        raise ValueError(
            f"model: {type(network).__name__} is no dense detector, whose anchors get labels: use "
            "a config of PAA, RetinaNet, FCOS or a method on them"
        )
    return network


@torch.no_grad()
def inspect_batch(model: nn.Module, batched_inputs: list[dict]) -> Inspection:
    """Returns the assignments of a model's networks in eval mode; the model stays as it is.

    The teacher's labels come from the student's assigner, as in LAD.

    Args:
        model: a dense detector, or a method on one or two of them.
        batched_inputs: as in training, with "instances".

    Raises:
        ValueError: for another model, or costs that are not finite.
    """
    network = _main_network(model)
    with _evaluating(model):
        outputs = _outputs(model, batched_inputs)
    anchors = outputs[0].predictions.anchors
    targets = Targets.from_instances(ground_truth(batched_inputs))
    assigner = network.assigner
    names = NETWORKS if isinstance(model, Distillation) else ("detector",)
    if assigner is None or assigner.is_static:
        assignment = network.assign(outputs[0].predictions, targets)
        targets = targets.to(anchors.boxes.device)
        return Inspection(anchors, targets, None, {names[0]: NetworkView(assignment)}, {})
    candidates = assigner.candidates(anchors, targets)
    targets = targets.to(anchors.boxes.device)
    costs = [assigner.cost(x.predictions, targets, candidates) for x in outputs]
    known = outputs[-1].known_classes
    if known is not None:
        costs[1] = known_costs(costs[1], costs[0], known, candidates, targets)
    views = {
        name: _view(assigner, each, anchors, targets, candidates, name)
        for name, each in zip(names, costs, strict=False)
    }
    comparisons = {}
    if len(views) == 2:
        for name, indicator in _indicators(model).items():
            comparisons[name] = _compare(indicator, views, candidates, targets, anchors)
    return Inspection(anchors, targets, candidates, views, comparisons)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """While it runs, a model is in eval mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _outputs(model: nn.Module, batched_inputs: list[dict]) -> list[NetworkOutput]:
    """Returns the student's or the only network's outputs, then a teacher's, in float32."""
    if isinstance(model, Distillation):
        outputs = [x for x in model.run(batched_inputs) if x is not None]
    else:
        network = _main_network(model)
        outputs = [network.run(network.preprocess_image(batched_inputs))]
    return [x._replace(predictions=x.predictions.float()) for x in outputs]


def _view(
    assigner: LabelAssigner,
    costs: CandidateCosts,
    anchors: Anchors,
    targets: Targets,
    candidates: Candidates,
    name: str,
) -> NetworkView:
    if not costs.cost.isfinite().all():
        raise ValueError(f"the costs of the {name} are not finite: its training has diverged")
    assignment = assigner.assign(costs, candidates, anchors, targets)
    if not isinstance(assigner, PAAAssigner) or not len(costs.cost):
        return NetworkView(assignment, costs)
    chosen, _ = assigner.choose(costs, candidates, anchors, targets)
    _, fit = assigner.mixtures(costs.cost, chosen)
    return NetworkView(assignment, costs, chosen, fit)


def _indicators(model: nn.Module) -> dict[str, Indicator]:
    """Returns the paper's indicators by name, and the model's own in their place or after them."""
    indicators: dict[str, Indicator] = {"std/mean": StdMean(), "Fisher": Fisher()}
    roles = model_info(model).roles
    if roles is not None:
        indicators[_indicator_name(roles.switch)] = roles.switch.indicator
    return indicators


def _indicator_name(switch: RoleSwitch) -> str:
    kind = type(switch.indicator)
    return {StdMean: "std/mean", Fisher: "Fisher"}.get(kind, kind.__name__)


def _compare(
    indicator: Indicator,
    views: Mapping[str, NetworkView],
    candidates: Candidates,
    targets: Targets,
    anchors: Anchors,
) -> dict[str, Comparison]:
    student, teacher = (views[name].costs for name in NETWORKS)
    assert student is not None and teacher is not None
    comparisons = {}
    for scope in SCOPES:
        switch = RoleSwitch(indicator=indicator, scope=scope)
        groups = switch.groups(candidates, targets, len(anchors.strides))
        comparisons[scope] = switch.compare(student.cost, teacher.cost, candidates, groups)
    return comparisons


def training_rule(model: nn.Module) -> TrainingRule:
    """Returns whose labels a model is trained on."""
    assigner = _main_network(model).assigner
    if isinstance(model, SoftLabel):
        return TrainingRule("The student is trained on the teacher's soft labels alone.")
    if assigner is None or assigner.is_static:
        return TrainingRule("The labels depend on the anchors alone, not on predictions.")
    if not isinstance(model, LAD):
        name = "student" if isinstance(model, Distillation) else "detector"
        return TrainingRule(f"The {name} is trained on its own assignment.")
    roles = model_info(model).roles
    if roles is None:
        return TrainingRule("The student is trained on the teacher's assignment.")
    trained = "Both networks are" if model.trains_teacher else "The student is"
    scope, indicator = roles.switch.scope, _indicator_name(roles.switch)
    text = (
        f"{trained} trained on the assignment of the network with the higher indicator: "
        f"{indicator}, one decision per {scope}."
    )
    return TrainingRule(text, scope, indicator)


def detected_instances(model: nn.Module, image: Tensor, threshold: float) -> Instances:
    """Returns a model's detections as if they were labels.

    Args:
        model: evaluated in eval mode; it stays as it is.
        image: (3, H, W) as the model's input.
        threshold: detections that score less are left out.
    """
    with _evaluating(model), torch.no_grad():
        found = model([{"image": image}])[0]["instances"].to("cpu")
    found = found[found.scores >= threshold]
    instances = Instances(found.image_size)
    instances.gt_boxes, instances.gt_classes = found.pred_boxes, found.pred_classes
    return instances
