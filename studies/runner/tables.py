"""Markdown tables of stored runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t

from studies.runner import results
from studies.runner.definition import Method, Study

Pair = tuple[dict[str, Any], dict[str, Any]]  # a method's run and its baseline's, as stored


def summary(study: Study, folder: Path) -> str:
    """Returns the last evaluation of each method: mean and standard deviation over the seeds.

    Columns that are empty for all methods are left out.
    """
    file = results.cost_path(folder)
    cost = results.read(file) if file.is_file() else {"unit": "", "ratios": {}}
    columns = ["method", "iterations", "seeds", "AP", "AP50", "AP75"]
    columns += ["AP of the second network", "student taught"]
    columns += [f"CPU time of a step's losses and gradients, {cost['unit']} = 1"]
    rows = []
    for method in study.methods:
        runs = list(results.read_all(folder, method.name).values())
        if not runs:
            continue
        student = [x["networks"]["student"] for x in runs]
        second = [x["networks"]["teacher"] for x in runs if "teacher" in x["networks"]]
        shares = [x["switch"]["student_share"] for x in runs if x["switch"]]
        keys = ("AP", "AP50", "AP75")
        cells = [spread([results.precision(x, key) for x in student]) for key in keys]
        cells += [spread([results.precision(x) for x in second]), spread(shares, digits=2)]
        cells += [f"{cost['ratios'][method.name]:.2f}" if method.name in cost["ratios"] else ""]
        rows.append([method.name, str(runs[0]["iterations"]), str(len(runs)), *cells])
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    return markdown([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])


def differences(study: Study, folder: Path) -> str:
    """Returns the gain of each method over its baseline, by seed, with a 95 % interval (t).

    "†" marks gains between runs of two processors.
    """
    rows = []
    for method in study.methods:
        if found := pairs(folder, method):
            by_seed = ", ".join(signed(gain(pair)) + mark([pair]) for pair in found.values())
            rows.append([method.name, method.baseline, by_seed, mean_gain(found)])
    return markdown(["method", "against", "AP gained, by seed", "mean, 95 % interval"], rows)


def curves(study: Study, folder: Path) -> str:
    """Returns the AP along the trainings, means over the seeds."""
    rows = []
    for method in study.methods:
        runs = list(results.read_all(folder, method.name).values())
        points: dict[int, list[float]] = {}
        for run in runs:
            curve = run["networks"]["student"]["curve"]
            for iteration, value in zip(curve["iteration"], curve["AP"], strict=True):
                points.setdefault(iteration, []).append(value or 0.0)
        if points:
            shown = ", ".join(f"{i}: {statistics.mean(x):.1f}" for i, x in sorted(points.items()))
            rows.append([method.name, str(len(runs)), shown])
    return markdown(["method", "seeds", "mean AP after iteration"], rows)


def seconds(study: Study, folder: Path) -> str:
    """Returns the mean duration of the trainings that were not interrupted."""
    rows = []
    for method in study.methods:
        runs = results.read_all(folder, method.name).values()
        known = [x["seconds"] for x in runs if x["seconds"]]
        if known:
            rows.append([method.name, str(len(known)), f"{statistics.mean(known):.0f}"])
    return markdown(["method", "runs", "seconds, evaluations included"], rows)


def pairs(folder: Path, method: Method) -> dict[int, Pair]:
    """Returns a method's runs and its baseline's of equal seed, by seed; {} without a baseline."""
    if not method.baseline:
        return {}
    own, plain = (results.read_all(folder, name) for name in (method.name, method.baseline))
    return {seed: (own[seed], plain[seed]) for seed in own if seed in plain}


def gains(folder: Path, method: Method) -> dict[int, float]:
    """Returns what a method's student gains in AP over its baseline's, by seed."""
    return {seed: gain(pair) for seed, pair in pairs(folder, method).items()}


def gain(pair: Pair) -> float:
    """Returns the difference of two students' AP."""
    own, plain = (results.precision(run["networks"]["student"]) for run in pair)
    return own - plain


def mark(found: Iterable[Pair]) -> str:
    """Returns "†" if a pair was made on two processors, whose rounding differs."""
    keys = "cpu", "gpu"
    return "†" if any(own.get(x) != plain.get(x) for own, plain in found for x in keys) else ""


def mean_gain(found: Mapping[int, Pair]) -> str:
    """Returns the mean gain of pairs by seed, with interval and mark; "" without pairs."""
    if not found:
        return ""
    return mean_interval([gain(pair) for pair in found.values()]) + mark(found.values())


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns mean, lower and upper end of its 95 % interval (Student's t); needs two values."""
    mean = statistics.mean(values)
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def mean_interval(values: Sequence[float]) -> str:
    """Returns "mean (from to)"; the mean alone of one value."""
    if len(values) < 2:
        return signed(values[0])
    mean, low, high = interval(values)
    return f"{signed(mean)} ({signed(low)} to {signed(high)})"


def signed(value: float) -> str:
    """Returns a gain with its sign and one decimal, never "-0.0"."""
    return f"{round(value, 1) + 0.0:+.1f}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Returns "mean ± standard deviation"; "" of nothing."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; "" without rows."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


TABLES = {
    "summary": summary,
    "differences": differences,
    "curves": curves,
    "seconds": seconds,
}
