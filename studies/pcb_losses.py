"""The field's distillation losses on circuit boards, in short trainings: alone, and on top of LAD.

Student and teacher are those of the study pcb. "paa_800" takes about as long as LAD's 500
iterations.
"""

from studies.common import TINY, digits, width
from studies.digits_losses import LOSSES
from studies.pcb import FLIPS, TWICE
from studies.runner.definition import Study

STUDENT = width(TINY, "model.student")

study = Study(
    name="pcb_losses",
    question="faster",
    overrides=("train.max_iter=500", FLIPS),
    seeds=(2, 3, 4),
    data="pcb",
    methods=(
        digits("teacher", TWICE, seeds=(0,)),
        digits("paa", width(TINY)),
        digits("lad", STUDENT, teacher="teacher", baseline="paa"),
        digits("paa_800", width(TINY), "train.max_iter=800", config="paa", baseline="lad"),
        *(
            digits(f"{base}_{loss}", STUDENT, teacher="teacher", baseline=base)
            for loss in LOSSES
            for base in ("paa", "lad")
        ),
        digits("paa_lgd", STUDENT, baseline="paa"),
        digits("lad_lgd", STUDENT, teacher="teacher", baseline="lad"),
    ),
)
