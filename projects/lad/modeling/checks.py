"""Whether two networks and a distillation loss fit together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lad.assignment.assigners import LabelAssigner
from lad.modeling.network import DenseNetwork, same_values


def check_networks(student: DenseNetwork, teacher: DenseNetwork) -> None:
    """Raises ValueError unless both networks have equal anchors, feature maps and classes."""
    cells = student.first_cells(), teacher.first_cells()
    strides = [[stride for stride, _ in x] for x in cells]
    if strides[0] != strides[1]:
        raise ValueError(
            f"student and teacher need equal anchors, but have feature levels of strides "
            f"{strides[0]} and {strides[1]}: build both on the same levels (head_in_features), as "
            "one function of configs/common/models/ does"
        )
    for (stride, cell), (_, other) in zip(*cells, strict=True):
        if not same_values(cell, other, atol=1e-3):
            raise ValueError(
                f"student and teacher need equal anchors, but a cell of stride {stride} has "
                f"{_describe(cell)} and {_describe(other)}: give model.student the anchors that "
                "the teacher was trained with"
            )
    divisors = student.backbone.size_divisibility, teacher.backbone.size_divisibility
    if divisors[0] != divisors[1]:
        raise ValueError(
            f"student and teacher need feature maps of equal sizes, but their backbones pad images "
            f"to multiples of {divisors[0]} and {divisors[1]}: choose other levels"
        )
    classes = student.num_classes, teacher.num_classes
    if classes[0] != classes[1]:
        raise ValueError(
            f"student and teacher need equal classes, but have {classes[0]} and {classes[1]}: set "
            "the num_classes of model.student and model.teacher equal; if the teacher's checkpoint "
            "has others, name them in model.teacher_classes"
        )


def _describe(cell: Tensor) -> str:
    """Describes a cell's anchors: number, sizes and center of the first."""
    if cell.is_meta:
        return f"{len(cell)} anchor(s)"
    sizes = ", ".join(f"{w:.0f}x{h:.0f}" for w, h in (cell[:, 2:] - cell[:, :2]).tolist())
    x, y = ((cell[0, :2] + cell[0, 2:]) / 2).tolist()
    return f"{len(cell)} anchor(s) of {sizes} px at ({x:g}, {y:g})"


def check_teachable(student: DenseNetwork, teacher: DenseNetwork | None) -> None:
    """Raises ValueError unless a teacher can change the student's labels."""
    if teacher is None:
        raise ValueError("model.teacher=null: label assignment distillation needs a teacher")
    assigner: LabelAssigner | None = student.assigner
    if assigner is None or assigner.is_static:
        name = "null" if assigner is None else type(assigner).__name__
        raise ValueError(
            f"model.student.assigner: {name} is static, so a teacher cannot change its labels: "
            "choose PAAAssigner, SimOTAAssigner or TALAssigner, or train the detector alone"
        )


def check_intermediates(key: str, modules: Sequence[str], network: DenseNetwork) -> None:
    """Raises ValueError unless a network has the inner modules that a loss, at key, needs."""
    known = {name for name, _ in network.named_modules()}
    for name in modules:
        if name not in known:
            raise ValueError(
                f"{key} needs the output of {name}, which {type(network).__name__} does not have: "
                "name another module"
            )
