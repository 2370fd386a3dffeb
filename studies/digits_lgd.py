"""Label-guided self-distillation on digit scenes, with PAA, LAD, RetinaNet and FCOS."""

from studies.common import SHORT, TEACHER, digits
from studies.runner.definition import Study

study = Study(
    name="digits_lgd",
    question="faster",
    overrides=SHORT,
    evaluations=1,
    methods=(
        TEACHER,
        digits("paa"),
        digits("paa_lgd", baseline="paa"),
        digits("lad", teacher="teacher"),
        digits("lad_lgd", teacher="teacher", baseline="lad"),
        digits("retinanet"),
        digits("retinanet_lgd", baseline="retinanet"),
        digits("fcos"),
        digits("fcos_lgd", baseline="fcos"),
    ),
)
