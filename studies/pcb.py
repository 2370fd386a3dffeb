"""Short and longer trainings on pictures: defects of circuit boards (docs/data.md, DeepPCB).

The networks are the small ones of the digit scenes, the student as narrow as "R18" of digits_paper,
the teacher three times as wide and trained twice as long. Rows with "early" are as short as most
trainings on a CPU.
"""

from typing import Any

from studies.common import TINY, digits, width
from studies.runner.definition import Method, Study

ITERATIONS = 2000
TWICE = f"train.max_iter={2 * ITERATIONS}"
EARLY = f"train.max_iter={ITERATIONS // 4}"
FLIPS = "dataloader.train.mapper.augmentations=[{_target_:detectron2.data.transforms.RandomFlip}]"
FEW = (0, 1, 2)


def taught(name: str, *overrides: str, baseline: str = "paa", **options: Any) -> Method:
    """The student with the teacher."""
    overrides = width(TINY, "model.student"), *overrides
    return digits(name, *overrides, teacher="teacher", baseline=baseline, **options)


TEACHER = digits("teacher", TWICE, seeds=(0,))

study = Study(
    name="pcb",
    question="better",
    overrides=(f"train.max_iter={ITERATIONS}", FLIPS),
    seeds=(0, 1, 2, 3, 4),
    data="pcb",
    methods=(
        TEACHER,
        digits("paa", width(TINY)),
        digits("paa_twice", width(TINY), TWICE, config="paa", baseline="paa", seeds=FEW),
        taught("lad", seeds=FEW),
        taught("solad", seeds=FEW),
        taught("paa_crosskd", seeds=FEW),
        taught("lad_crosskd", baseline="paa_crosskd", seeds=FEW),
        digits("paa_early", width(TINY), EARLY, config="paa"),
        taught("lad_early", EARLY, config="lad", baseline="paa_early"),
        taught("solad_early", EARLY, config="solad", baseline="paa_early"),
    ),
)
