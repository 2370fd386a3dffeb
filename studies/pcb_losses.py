"""The field's distillation losses on circuit boards, in short trainings: alone, and on top of LAD.

Student and teacher are those of the study pcb. "paa_800" takes about as long as LAD's 500
iterations.
"""

from studies.common import TINY, digits, width
from studies.digits_losses import LOSSES
from studies.pcb import EARLY, FLIPS, TEACHER, taught
from studies.runner.definition import Study

study = Study(
    name="pcb_losses",
    question="faster",
    overrides=(EARLY, FLIPS),
    seeds=(2, 3, 4),
    data="pcb",
    methods=(
        TEACHER,
        digits("paa", width(TINY)),
        taught("lad"),
        digits("paa_800", width(TINY), "train.max_iter=800", config="paa", baseline="lad"),
        *(taught(f"{base}_{loss}", baseline=base) for loss in LOSSES for base in ("paa", "lad")),
        digits("paa_lgd", width(TINY, "model.student"), baseline="paa"),
        taught("lad_lgd", baseline="lad"),
    ),
)
