"""The field's distillation losses on Detectron2's RetinaNet and FCOS, on circuit boards.

The methods are those of digit scenes (digits_detectron2), the students as narrow as those of pcb,
the teachers three times as wide and trained for 1,200 iterations.
"""

from studies.common import TINY, digits
from studies.digits_detectron2 import PAA, SIMOTA, rows
from studies.pcb import EARLY, FLIPS
from studies.runner.definition import Study

_LONGER = "train.max_iter=1200"
_BOARDS = {"student_width": TINY, "num_classes": 6, "longer": 900}
TEACHER = digits("teacher", _LONGER, seeds=(0,))
FCOS_TEACHER = digits("fcos_teacher", _LONGER, seeds=(0,))

study = Study(
    name="pcb_detectron2",
    question="faster",
    overrides=(EARLY, FLIPS),
    data="pcb",
    evaluations=2,
    methods=(
        TEACHER,
        *rows("retinanet", PAA, TEACHER, **_BOARDS),
        FCOS_TEACHER,
        *rows("fcos", SIMOTA, FCOS_TEACHER, **_BOARDS),
    ),
)
