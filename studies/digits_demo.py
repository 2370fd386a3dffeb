"""What `make demo` trains, over more seeds: a tiny student alone and with a wide teacher.

`paa_800`, which the demo leaves out, takes as much CPU time as the 500 iterations of `lad`.
"""

from studies.common import TEACHER, TINY, digits, width
from studies.runner.definition import Study

STUDENT = width(TINY, "model.student")

study = Study(
    name="demo",
    question="faster",
    overrides=("train.max_iter=500",),
    seeds=(0, 1, 2, 3, 4),
    evaluations=1,
    methods=(
        TEACHER,
        digits("paa", width(TINY)),
        digits("lad", STUDENT, teacher="teacher", baseline="paa"),
        digits("solad", STUDENT, teacher="teacher", baseline="paa"),
        digits("paa_800", width(TINY), "train.max_iter=800", config="paa", baseline="lad"),
    ),
)
