"""One head's raw outputs in; anchors, candidates, costs, labels, losses, gradients, boxes out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import Tensor

from lad.assignment.costs import PAACost
from lad.assignment.paa import PAAAssigner
from lad.checkpoint.convert import from_mmdetection
from lad.modeling.anchor_generator import AnchorGenerator
from lad.modeling.heads import ConditionalObjectness, ImplicitObjectness, PAAHead
from lad.modeling.losses import DetectionLosses
from lad.modeling.postprocess import PostProcessor
from lad.ops.coders import DeltaCoder
from lad.structures import (
    Anchors,
    Assignment,
    CandidateCosts,
    Candidates,
    DensePredictions,
    Targets,
)
from parity.report import Report

FAMILIES = ("paa", "std", "cop", "copbase", "io", "iobase", "iolow", "iobaselow")
LEVELS = range(5)
OFFICIAL_LOSSES = {"loss_cls": "loss_cls", "loss_box_reg": "loss_bbox", "loss_quality": "loss_iou"}


class Raw(NamedTuple):
    """A head's raw output maps, leaves of the graph, and what is made of them."""

    maps: dict[str, list[Tensor]]
    predictions: DensePredictions


class Scene(NamedTuple):
    """What both implementations are given besides raw outputs."""

    anchors: Anchors
    targets: Targets
    candidates: Candidates
    assigner: PAAAssigner


def raw_outputs(data, prefix: str, activation: str, quality: bool) -> Raw:
    """Reads the raw outputs of the head named by a prefix."""
    names = ("cls", "reg", "iou") if quality else ("cls", "reg")
    maps = {
        name: [torch.from_numpy(data[f"{prefix}{name}_l{i}"]).requires_grad_() for i in LEVELS]
        for name in names
    }
    anchors = AnchorGenerator()([tuple(x.shape[-2:]) for x in maps["cls"]])
    scores, regression, iou = (per_anchor(maps.get(name, [])) for name in ("cls", "reg", "iou"))
    quality_logits = iou[..., 0] if quality else None
    predictions = DensePredictions(
        scores, activation, regression, quality_logits, anchors, DeltaCoder()
    )
    return Raw(maps, predictions)


def per_anchor(maps: list[Tensor]) -> Tensor:
    """Lays (N, C, H_l, W_l) maps out as (N, R, C)."""
    return (
        torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1) if maps else torch.empty(0)
    )


def read_scene(data) -> Scene:
    """Reads ground truth and lays out our anchors and candidates."""
    shapes = [tuple(data[_map_name(data, i)].shape[-2:]) for i in LEVELS]
    anchors = AnchorGenerator()(shapes)
    boxes = [torch.from_numpy(data[f"gt_boxes_{i}"]).reshape(-1, 4) for i in (0, 1)]
    classes = torch.cat([torch.from_numpy(data[f"gt_labels_{i}"]) for i in (0, 1)])
    image = torch.repeat_interleave(torch.arange(2), torch.tensor([len(x) for x in boxes]))
    sizes = torch.tensor([data[f"img_shape_{i}"][:2].tolist() for i in (0, 1)])
    targets = Targets(torch.cat(boxes), classes, image, sizes)
    assigner = PAAAssigner(
        cost=PAACost(), num_classes=int(data["num_classes"]), single_candidate_positive=False
    )
    return Scene(anchors, targets, assigner.candidates(anchors, targets), assigner)


def _map_name(data, level: int) -> str:
    return next(n for n in (f"cls_l{level}", f"s_cls_l{level}") if n in data)


def compare(path: Path, report: Report) -> None:
    """Compares one file of a PAA head, with or without objectness."""
    data = np.load(path)
    family = path.stem.partition("_")[2]
    activation = "sigmoid" if family in ("paa", "std") else "none"
    raw = raw_outputs(data, "", activation, "base" not in family)
    scene = read_scene(data)
    if "feat_l0" in data:
        compare_head(data, "", family, raw, report)
    if "pre_labels_0" not in data:  # only losses: the labels are our own
        own = scene.assigner.cost(raw.predictions, scene.targets, scene.candidates)
        assignment = scene.assigner.assign(own, scene.candidates, scene.anchors, scene.targets)
        compare_losses(data, "", raw, assignment, scene, DetectionLosses(), report)
        return
    compare_geometry(data, scene, report)
    costs = compare_costs(data, "", raw, scene, report)
    labels = torch.stack([torch.from_numpy(data[f"labels_{i}"]) for i in (0, 1)])
    weights = torch.stack([torch.from_numpy(data[f"label_weights_{i}"]) for i in (0, 1)])
    official = official_assignment(data, labels, weights, scene)
    compare_labels(costs, official, scene, report)
    compare_losses(data, "", raw, official, scene, DetectionLosses(), report)
    compare_detectors(data, "", raw, scene, report)


def compare_detectors(data, prefix: str, raw: Raw, scene: Scene, report: Report) -> None:
    """Compares the detections of every setting in a file."""
    for key in data.files:
        if key.startswith(f"{prefix}det_") and key.endswith("_boxes_0"):
            name = key.removesuffix("_boxes_0")
            compare_postprocessor(data, name, raw.predictions, scene, report)


def compare_head(data, prefix: str, family: str, raw: Raw, report: Report) -> None:
    """Runs our head with the official weights on the official features."""
    mark = f"{prefix}sd/"
    names = [k for k in data.files if k.startswith(mark)]
    state = {f"bbox_head.{k.removeprefix(mark)}": torch.from_numpy(data[k]) for k in names}
    features = [torch.from_numpy(data[f"{prefix}feat_l{i}"]) for i in LEVELS]
    channels = len(state["bbox_head.cls_convs.0.conv.weight"])
    objectness = None
    if family.startswith("cop"):
        objectness = ConditionalObjectness(channels=channels)
    elif family.startswith("io"):
        objectness = ImplicitObjectness(channels=channels)
    head = PAAHead(
        in_channels=features[0].shape[1],
        num_classes=int(data["num_classes"]),
        channels=channels,
        num_convs=sum(".conv.weight" in k and "cls_convs" in k for k in state),
        quality=raw.predictions.quality is not None,
        objectness=objectness,
    )
    renamed, unused = from_mmdetection(state)
    renamed = {k.removeprefix("head."): v for k, v in renamed.items()}
    missing, unexpected = head.load_state_dict(renamed, strict=False)
    # The official heads carry branches that they do not use.
    unexpected = [k for k in unexpected if not k.startswith(("quality.", "objectness."))]
    report.equal(f"{prefix}head parameters", len([*missing, *unexpected, *unused]), 0)
    scores, deltas, quality = head(features)
    report.compare(f"{prefix}head scores", per_anchor(scores), raw.predictions.scores)
    report.compare(f"{prefix}head deltas", per_anchor(deltas), raw.predictions.regression)
    if raw.predictions.quality is not None:
        ours = per_anchor(quality)[..., 0]
        report.compare(f"{prefix}head quality", ours, raw.predictions.quality)


def compare_geometry(data, scene: Scene, report: Report) -> None:
    """Compares anchors, their validity and the pre-assigned candidates."""
    report.compare("anchors", scene.anchors.boxes, data["anchors"])
    valid = scene.anchors.valid(scene.targets.image_sizes)
    first = 0
    for i in (0, 1):
        report.equal(f"valid_{i}", valid[i], data[f"valid_flags_{i}"])
        mine = scene.candidates.image == i
        order = scene.candidates.anchor[mine].argsort()
        report.equal(f"candidates_{i}", scene.candidates.anchor[mine][order], data[f"pos_inds_{i}"])
        objects = scene.candidates.gt[mine][order] - first
        report.equal(f"candidate objects_{i}", objects, data[f"pos_gt_inds_{i}"])
        first += len(data[f"gt_boxes_{i}"])


def compare_costs(data, prefix: str, raw: Raw, scene: Scene, report: Report) -> CandidateCosts:
    """Compares the cost of every candidate; returns ours."""
    costs = scene.assigner.cost(raw.predictions, scene.targets, scene.candidates)
    for i in (0, 1):
        mine = scene.candidates.image == i
        order = scene.candidates.anchor[mine].argsort()
        report.compare(f"{prefix}cost_{i}", costs.cost[mine][order], data[f"{prefix}pos_loss_{i}"])
    return costs


def official_assignment(data, labels: Tensor, weights: Tensor, scene: Scene) -> Assignment:
    """Puts official labels, (2, R), into our form."""
    num_classes = int(data["num_classes"])
    gt = torch.full_like(labels, -1)
    gt[scene.candidates.image, scene.candidates.anchor] = scene.candidates.gt
    gt = torch.where(labels < num_classes, gt, -1)
    return Assignment(torch.where(weights > 0, labels, -1), gt)


def compare_labels(
    costs: CandidateCosts, official: Assignment, scene: Scene, report: Report
) -> None:
    """Counts the candidates whose labels differ."""
    ours = scene.assigner.assign(costs, scene.candidates, scene.anchors, scene.targets)
    at = scene.candidates.image, scene.candidates.anchor
    differing = (ours.labels[at] != official.labels[at]) | (ours.gt[at] != official.gt[at])
    report.labels(int(differing.sum()), len(differing))
    same_elsewhere = ours.labels.clone()
    same_elsewhere[at] = official.labels[at]
    report.equal("labels elsewhere", same_elsewhere, official.labels)


def compare_losses(
    data,
    prefix: str,
    raw: Raw,
    assignment: Assignment,
    scene: Scene,
    losses: DetectionLosses,
    report: Report,
    *,
    suffix: str = "",
    gradient: str | None = "grad_",
) -> None:
    """Compares losses on an assignment and their gradients with respect to the raw outputs."""
    ours = losses(raw.predictions, assignment, scene.targets)
    for name, value in ours.items():
        key = f"{prefix}{OFFICIAL_LOSSES[name]}{suffix}"
        report.compare(key, value, data[key])
    if gradient and f"{gradient}cls_l0" in data:
        compare_gradients(data, gradient, raw, sum(ours.values()), report)


def compare_gradients(data, prefix: str, raw: Raw, loss: Tensor, report: Report) -> None:
    """Compares the gradient of a loss with respect to every raw map."""
    for name, maps in raw.maps.items():
        gradients = torch.autograd.grad(loss, maps, retain_graph=True, allow_unused=True)
        for level, gradient in enumerate(gradients):
            key = f"{prefix}{name}_l{level}"
            if key in data:
                zero = torch.zeros_like(maps[level])
                report.compare(key, zero if gradient is None else gradient, data[key])


def compare_postprocessor(
    data, name: str, predictions: DensePredictions, scene: Scene, report: Report
) -> None:
    """Compares the detections of one setting, which its name tells.

    The official code rescales boxes before non-maximum suppression; Detectron2 does it afterwards,
    which is the same, for the IoU does not depend on the scale.
    """
    postprocessor = PostProcessor(
        score_voting="novote" not in name,
        score_thresh=0.3 if "thr030" in name else 0.05,
        topk_candidates=100 if name.endswith("pre100") else 1000,
    )
    sizes = [tuple(size) for size in scene.targets.image_sizes.tolist()]
    for i, instances in enumerate(postprocessor(predictions, sizes)):
        if "rescale" in name:
            x, y = data[f"scale_factor_{i}"][:2]
            instances = detector_postprocess(instances, sizes[i][0] / y, sizes[i][1] / x)
        boxes, labels = data[f"{name}_boxes_{i}"], data[f"{name}_labels_{i}"]
        compare_detections(f"{name}_{i}", instances, boxes, labels, report)


def compare_detections(
    name: str, ours: Instances, boxes: np.ndarray, labels: np.ndarray, report: Report
) -> None:
    """Compares detections matched by class and score, without official rows that hold NaN.

    Ours have boxes without area there, which Detectron2 drops when it rescales.
    """
    boxes = boxes.reshape(-1, 5)  # an empty result may have been written with 4 columns
    known = ~np.isnan(boxes).any(axis=1)
    official, labels = torch.from_numpy(boxes[known]), torch.from_numpy(labels[known])
    report.equal(f"{name} number", len(ours), known.sum() if "rescale" in name else len(boxes))
    if known.all():
        report.compare(f"{name} scores", ours.scores.sort().values, official[:, 4].sort().values)
    if not len(official) or not len(ours):
        return
    same = (ours.pred_classes == labels[:, None]) & (
        (ours.scores - official[:, 4:]).abs() <= 1e-5 * official[:, 4:]
    )
    distance = (ours.pred_boxes.tensor - official[:, None, :4]).abs().amax(dim=-1)
    report.pixels(f"{name} boxes", float(distance.masked_fill(~same, np.inf).amin(dim=1).max()))
