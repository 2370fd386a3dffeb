"""CoLAD from scratch in a short training: what should happen in its first iterations?

Own labels, or fixed roles: "student100" lets the student teach for 100 iterations. Seed 0 chose how
long, with own labels; the others test it.
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
        *(
            colad(
                f"colad_{first}100",
                f"train.hooks.0.force={first}",
                "train.hooks.0.force_iterations=100",
            )
            for first in ("own", "student", "teacher")
        ),
    ),
)
