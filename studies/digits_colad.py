"""CoLAD from scratch in a short training: does it need labels of its own first?

Seed 0 chose how long; the others test it.
"""

from studies.common import SHORT, digits
from studies.runner.definition import Method, Study


def colad(name: str, *overrides: str) -> Method:
    """CoLAD with std/mean and one decision per iteration."""
    return digits(name, *overrides, config="colad_stdmean", baseline="paa")


study = Study(
    name="digits_colad",
    question="faster",
    overrides=SHORT,
    seeds=(1, 2, 3, 4, 5),
    evaluations=1,
    methods=(
        digits("paa"),
        colad("colad"),
        colad("colad_own100", "train.hooks.0.force=own", "train.hooks.0.force_iterations=100"),
    ),
)
