"""Two heads' raw outputs in: LAD, SoLAD, pure soft label and CoLAD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lad.assignment.indicators import StdMean, mean_and_std
from lad.assignment.switch import RoleSwitch
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.losses import DetectionLosses
from lad.structures import Assignment
from parity import dense
from parity.dense import Raw, Scene
from parity.report import Report

FAMILIES = ("lad", "colad", "kd")
SOFT_LOSSES = {
    "loss_soft_cls": "loss_kd_cls",
    "loss_soft_box": "loss_kd_bbox",
    "loss_soft_quality": "loss_kd_centerness",
}


def compare(path: Path, report: Report) -> None:
    """Compares one file of two heads; ``s_`` and ``t_`` are the official networks."""
    data = np.load(path)
    family = path.stem.partition("_")[2]
    with_cop = family == "colad"  # its second network has conditional objectness
    first = dense.raw_outputs(data, "s_", "sigmoid", True)
    second = dense.raw_outputs(data, "t_", "none" if with_cop else "sigmoid", True)
    scene = dense.read_scene(data)
    if "s_feat_l0" in data:
        dense.compare_head(data, "s_", "paa", first, report)
        dense.compare_head(data, "t_", "cop" if with_cop else "paa", second, report)
    if family != "kd":
        dense.compare_geometry(data, scene, report)
    {"lad": compare_lad, "colad": compare_colad, "kd": compare_soft_label}[family](
        data, first, second, scene, report
    )


def flat_assignment(data, prefix: str, scene: Scene) -> Assignment:
    """Reads official labels that are flattened over both images."""
    labels = torch.from_numpy(data[f"{prefix}la_labels"]).view(2, -1)
    weights = torch.from_numpy(data[f"{prefix}la_label_weights"]).view(2, -1)
    return dense.official_assignment(data, labels, weights, scene)


def compare_lad(data, student: Raw, teacher: Raw, scene: Scene, report: Report) -> None:
    """LAD with the teacher's labels, the student's own PAA, and SoLAD."""
    own_costs = dense.compare_costs(data, "", student, scene, report)
    costs = dense.compare_costs(data, "t_", teacher, scene, report)
    official = flat_assignment(data, "", scene)
    dense.compare_labels(costs, official, scene, report)
    losses = DetectionLosses(weight_boxes_by_iou=False)
    dense.compare_losses(data, "", student, official, scene, losses, report, gradient="s_grad_")
    own = flat_assignment(data, "own_", scene)
    dense.compare_labels(own_costs, own, scene, report)
    dense.compare_losses(
        data, "own_paa_", student, own, scene, DetectionLosses(), report, gradient=None
    )
    loss = SoftLabelLoss(class_weight=2.0, min_iou=float(data["solad_min_iou"]))
    compare_soft_losses(data, "solad_", loss, student, teacher, scene, report, "solad_grad_")
    dense.compare_detectors(data, "s_", student, scene, report)


def compare_soft_label(data, student: Raw, teacher: Raw, scene: Scene, report: Report) -> None:
    """Pure soft label: the official selection, by anchors, and at the paper's overlap."""
    for prefix, select_by in (("", "teacher_box"), ("anchor_", "anchor"), ("m05_", "teacher_box")):
        min_iou = float(data[f"{prefix}min_iou"])
        loss = SoftLabelLoss(class_weight=10.0, min_iou=min_iou, select_by=select_by)
        gradient = "s_grad_" if not prefix else None
        compare_soft_losses(data, prefix, loss, student, teacher, scene, report, gradient)


def compare_soft_losses(
    data,
    prefix: str,
    loss: SoftLabelLoss,
    student: Raw,
    teacher: Raw,
    scene: Scene,
    report: Report,
    gradient: str | None,
) -> None:
    """Compares the three soft-label terms and their gradients."""
    ours = loss.between(student.predictions, teacher.predictions, scene.targets)
    for name, value in ours.items():
        key = f"{prefix}{SOFT_LOSSES[name]}"
        report.compare(key, value, data[key])
    if gradient and f"{gradient}cls_l0" in data:
        dense.compare_gradients(data, gradient, student, sum(ours.values()), report)


def compare_colad(data, first: Raw, second: Raw, scene: Scene, report: Report) -> None:
    """CoLAD as released: our student is the code's second network, our teacher its first."""
    teacher = dense.compare_costs(data, "", first, scene, report)
    student = dense.compare_costs(data, "t_", second, scene, report)
    switch = RoleSwitch(indicator=StdMean(), scope="level")
    num_levels = len(scene.anchors.strides)
    by_student, record = switch(
        student.cost, teacher.cost, scene.candidates, scene.targets, num_levels
    )
    compare_cells(data, student.cost, teacher.cost, by_student, scene, report)
    report.compare("stat_t_ratio", record.student_share, data["stat_t_ratio"])

    official = flat_assignment(data, "", scene)
    dense.compare_labels(student.where(by_student, teacher), official, scene, report)
    losses = DetectionLosses(weight_boxes_by_iou=False)
    dense.compare_losses(data, "", first, official, scene, losses, report, gradient="s_grad_")
    dense.compare_losses(
        data, "", second, official, scene, losses, report, suffix="_t", gradient="t_grad_"
    )
    dense.compare_detectors(data, "t_", second, scene, report)


def compare_cells(data, student_cost, teacher_cost, by_student, scene: Scene, report: Report):
    """Compares means, deviations, indicators and choices of every (object, level) cell."""
    switch = RoleSwitch(indicator=StdMean(), scope="level")
    groups = switch.groups(scene.candidates, scene.targets, len(scene.anchors.strides))
    columns = str(data["rho_columns"]).split(",")
    rows = np.concatenate([data["rho_0"], data["rho_1"]])
    image = np.repeat([0, 1], [len(data["rho_0"]), len(data["rho_1"])])
    table = dict(zip(columns, rows.T, strict=True))
    gt = table["gt"] + np.where(image == 1, len(data["gt_boxes_0"]), 0)
    cell = torch.from_numpy(gt * len(scene.anchors.strides) + table["level"]).long()
    several = torch.from_numpy(table["n"] > 1)
    for mark, cost in (("s", teacher_cost), ("t", student_cost)):
        sums = StdMean().sums(cost, scene.candidates, groups)[cell]
        mean, std = mean_and_std(sums)
        official_mean, official_std = table[f"{mark}_mean"], table[f"{mark}_std"]
        report.compare(f"{mark}_mean", mean, official_mean)
        report.compare(f"{mark}_std", std[several], official_std[several])
        report.compare(f"{mark}_rho", (std / mean)[several], table[f"rho_{mark}"][several])
        logged = [mean[torch.from_numpy(image == i)].mean() for i in (0, 1)]
        report.compare(f"stat_{mark}_mean", sum(logged) / 2, data[f"stat_{mark}_mean"])
    chosen = groups.sum(by_student)[cell] > 0
    report.equal("choices", chosen, table["teacher_chosen"] > 0)
