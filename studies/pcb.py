"""Converged students on pictures: defects of circuit boards (docs/data.md, DeepPCB).

The networks are the small ones of the digit scenes, the student as narrow as "R18" of digits_paper,
the teacher three times as wide and trained twice as long. Rows with "early" are as short as most
trainings on a CPU.
"""

from studies.digits_paper import TINY, width
from studies.runner.definition import Method, Study

ITERATIONS = 2000
TWICE = f"train.max_iter={2 * ITERATIONS}"
EARLY = f"train.max_iter={ITERATIONS // 4}"
FLIPS = "dataloader.train.mapper.augmentations=[{_target_:detectron2.data.transforms.RandomFlip}]"
SEEDS = (0, 1, 2, 3, 4)
FEW = (0, 1, 2)
TEACHER = "teacher"


def alone(name: str, *overrides: str, baseline: str = "", seeds: tuple[int, ...] = SEEDS) -> Method:
    """PAA's student alone."""
    overrides = width(TINY), *overrides
    return Method(name, "digits/paa.py", overrides, baseline=baseline, seeds=seeds)


def taught(
    name: str,
    *overrides: str,
    config: str = "",
    baseline: str = "paa",
    seeds: tuple[int, ...] = SEEDS,
) -> Method:
    """The student with a teacher."""
    overrides = width(TINY, "model.student"), *overrides
    return Method(
        name, f"digits/{config or name}.py", overrides, TEACHER, baseline=baseline, seeds=seeds
    )


study = Study(
    name="pcb",
    question="better",
    overrides=(f"train.max_iter={ITERATIONS}", FLIPS),
    data="pcb",
    methods=(
        Method(TEACHER, "digits/teacher.py", (TWICE,), seeds=(0,)),
        alone("paa"),
        alone("paa_twice", TWICE, baseline="paa", seeds=FEW),
        taught("lad"),
        taught("solad"),
        taught("paa_crosskd", seeds=FEW),
        taught("lad_crosskd", baseline="paa_crosskd", seeds=FEW),
        taught("paa_pkd", seeds=FEW),
        taught("lad_pkd", baseline="paa_pkd", seeds=FEW),
        alone("paa_early", EARLY),
        taught("lad_early", EARLY, config="lad", baseline="paa_early"),
        taught("solad_early", EARLY, config="solad", baseline="paa_early"),
    ),
)
