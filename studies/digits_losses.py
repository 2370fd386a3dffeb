"""The field's distillation losses on digit scenes: alone, and on top of LAD."""

from studies.common import SHORT, TEACHER, digits
from studies.runner.definition import Study

LOSSES = ("pkd", "bckd", "crosskd", "pgd")

study = Study(
    name="digits_losses",
    question="faster",
    overrides=SHORT,
    evaluations=2,
    methods=(
        TEACHER,
        digits("paa"),
        digits("lad", teacher="teacher", baseline="paa"),
        *(
            digits(f"{base}_{loss}", teacher="teacher", baseline=base)
            for base in ("paa", "lad")
            for loss in LOSSES
        ),
        digits("gfl_teacher", *TEACHER.overrides, seeds=TEACHER.seeds),
        digits("gfl"),
        digits("gfl_ld", teacher="gfl_teacher", baseline="gfl"),
        digits("gfl_lad", teacher="gfl_teacher", baseline="gfl"),
        digits("gfl_lad_ld", teacher="gfl_teacher", baseline="gfl_lad"),
    ),
)
