"""What the studies on digit scenes share."""

from studies.runner.definition import Method

SHORT = ("train.max_iter=400",)
# Widths of the small networks; the configs of configs/digits have SMALL, the teachers WIDE.
TINY, SMALL, WIDE = 16, 32, 48


def width(value: int, network: str = "model") -> str:
    """An override of a network's width."""
    return f"{network}.backbone.bottom_up.width={value}"


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
