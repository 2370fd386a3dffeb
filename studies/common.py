"""What the studies on digit scenes share."""

from studies.runner.definition import Method

SHORT = ("train.max_iter=400",)


def digits(
    name: str,
    *overrides: str,
    config: str = "",
    teacher: str = "",
    baseline: str = "",
    seeds: tuple[int, ...] | None = None,
) -> Method:
    """A method with a config of configs/digits, by default that of its name."""
    config = f"digits/{config or name}.py"
    return Method(name, config, overrides, teacher, baseline=baseline, seeds=seeds)


TEACHER = digits("teacher", "train.max_iter=700", seeds=(0,))
