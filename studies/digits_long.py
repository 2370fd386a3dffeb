"""Long trainings of a tiny student on digit scenes: does a teacher make it better in the end?"""

from studies.common import TINY, WIDE, digits, width
from studies.runner.definition import Study

ITERATIONS = 3000
STUDENT = width(TINY, "model.student")

study = Study(
    name="digits_long",
    question="better",
    overrides=(f"train.max_iter={ITERATIONS}",),
    methods=(
        digits("teacher", width(WIDE), config="paa", seeds=(0,)),
        digits("paa", width(TINY)),
        digits(
            "paa_twice",
            width(TINY),
            f"train.max_iter={2 * ITERATIONS}",
            config="paa",
            baseline="paa",
        ),
        digits("lad", STUDENT, teacher="teacher", baseline="paa"),
        digits("solad", STUDENT, teacher="teacher", baseline="paa"),
        digits("paa_crosskd", STUDENT, teacher="teacher", baseline="paa"),
    ),
)
