"""What the studies on digit scenes share."""

from studies.runner.definition import Method

SHORT = ("train.max_iter=400",)
TEACHER = Method("teacher", "digits/teacher.py", ("train.max_iter=700",), seeds=(0,))


def digits(
    name: str, *overrides: str, config: str = "", teacher: str = "", baseline: str = ""
) -> Method:
    """A method with a config of configs/digits, by default that of its name."""
    return Method(name, f"digits/{config or name}.py", overrides, teacher, baseline=baseline)
