"""CoLAD from scratch in a short training: does it need labels of its own first?

Seed 0 chose how long; the others test it.
"""

from studies.common import SHORT, digits
from studies.runner.definition import Method, Study


def colad(name: str, *overrides: str, seeds: tuple[int, ...] | None = None) -> Method:
    """CoLAD with std/mean and one decision per iteration."""
    return digits(name, *overrides, config="colad_stdmean", baseline="paa", seeds=seeds)


def force(role: str, iterations: int) -> tuple[str, str]:
    """What happens in the first iterations."""
    return f"train.hooks.0.force={role}", f"train.hooks.0.force_iterations={iterations}"


study = Study(
    name="digits_colad",
    question="faster",
    overrides=SHORT,
    seeds=(1, 2, 3, 4, 5),
    evaluations=1,
    methods=(
        digits("paa"),
        digits("paa_wide", "model.backbone.bottom_up.width=48", config="paa"),
        colad("colad"),
        colad("colad_own100", *force("own", 100)),
        colad("colad_teacher100", *force("teacher", 100), seeds=(1, 2, 3)),
    ),
)
