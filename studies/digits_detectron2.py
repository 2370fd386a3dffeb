"""The field's distillation losses on Detectron2's RetinaNet and FCOS: alone, and on top of LAD.

A dynamic assigner labels in place of their static rules: PAA in RetinaNet, whose anchors are PAA's;
SimOTA in FCOS, whose anchors are as small as a stride. Rows with "700" take about as long as the
400 iterations of LAD with CrossKD.
"""

from __future__ import annotations

from collections.abc import Iterator

from studies.common import SHORT, SMALL, TEACHER, digits, width
from studies.runner.definition import Method, Study

_LOSSES = "lad.modeling.distill_losses"
_LABEL_TEACHER = f"{_LOSSES}.lgd.LabelGuidedTeacher,channels:32,CLASSES,label_width:16"
LOSSES = {
    "pkd": f"{_LOSSES}.pkd.PKD",
    "bckd": f"{_LOSSES}.bckd.BCKD",
    "crosskd": f"{_LOSSES}.crosskd.CrossKD",
    "pgd": f"{_LOSSES}.pgd.PGD",
    "lgd": f"{_LOSSES}.lgd.LGD,start:0.1667,teacher:{{_target_:{_LABEL_TEACHER}}}",
}
OWN_LABELS = "model._target_=lad.modeling.distillation.Distillation"
PAA = "lad.assignment.paa.PAAAssigner,cost:{_target_:lad.assignment.costs.PAACost}"
SIMOTA = "lad.assignment.simota.SimOTAAssigner"


def use(assigner: str, num_classes: int = 10) -> str:
    """An override of a detector's assigner."""
    return f"model.assigner={{_target_:{assigner},num_classes:{num_classes}}}"


def rows(
    network: str,
    assigner: str,
    teacher: Method,
    *,
    student_width: int = SMALL,
    num_classes: int = 10,
    longer: int = 700,
) -> Iterator[Method]:
    """The network with its static rule, the assigner, LAD, and the latter two with each loss."""
    static, lad = f"{network}_static", f"{network}_lad"
    alone, taught = width(student_width), width(student_width, "model.student")
    yield digits(static, alone, config=network)
    yield digits(network, alone, use(assigner, num_classes), baseline=static)
    yield digits(lad, taught, teacher=teacher.name, baseline=network)
    for base, labels in ((network, (OWN_LABELS,)), (lad, ())):
        for name, loss in LOSSES.items():
            loss = loss.replace("CLASSES", f"num_classes:{num_classes}")
            overrides = taught, *labels, f"model.distill_losses=[{{_target_:{loss}}}]"
            options = {"config": lad, "teacher": teacher.name, "baseline": base}
            yield digits(f"{base}_{name}", *overrides, **options)
    overrides = alone, use(assigner, num_classes), f"train.max_iter={longer}"
    yield digits(f"{network}_{longer}", *overrides, config=network, baseline=f"{lad}_crosskd")


FCOS_TEACHER = digits("fcos_teacher", *TEACHER.overrides, seeds=TEACHER.seeds)

study = Study(
    name="digits_detectron2",
    question="faster",
    overrides=SHORT,
    evaluations=2,
    methods=(
        TEACHER,
        *rows("retinanet", PAA, TEACHER),
        FCOS_TEACHER,
        *rows("fcos", SIMOTA, FCOS_TEACHER),
        digits("fcos_paa", use(PAA), config="fcos", baseline="fcos"),
    ),
)
