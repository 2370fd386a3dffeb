"""Plots of stored runs."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from studies.runner import results
from studies.runner.definition import Study
from studies.runner.tables import gains, interval


def draw(study: Study, folder: Path, file: Path) -> None:
    """Draws AP over iterations, mean and standard deviation, and the gains over the baselines."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    draw_curves(study, folder, left)
    draw_gains(study, folder, right)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)


def draw_curves(study: Study, folder: Path, axes: plt.Axes) -> None:
    """Draws the AP of each method along its training."""
    for method in study.methods:
        curves = [
            run["networks"]["student"]["curve"]
            for run in results.read_all(folder, method.name).values()
        ]
        if not curves:
            continue
        iterations = curves[0]["iteration"]
        values = [[c["AP"][i] or 0.0 for c in curves] for i in range(len(iterations))]
        mean = [statistics.mean(x) for x in values]
        deviation = [statistics.stdev(x) if len(x) > 1 else 0.0 for x in values]
        (line,) = axes.plot(iterations, mean, marker="o", markersize=3, label=method.name)
        low = [m - d for m, d in zip(mean, deviation, strict=True)]
        high = [m + d for m, d in zip(mean, deviation, strict=True)]
        axes.fill_between(iterations, low, high, color=line.get_color(), alpha=0.15)
    axes.set(xlabel="iteration", ylabel="AP", title="mean over seeds, ± standard deviation")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def draw_gains(study: Study, folder: Path, axes: plt.Axes) -> None:
    """Draws what each method gains over its baseline: seeds as dots, mean with 95 % interval."""
    names: list[str] = []
    for method in study.methods:
        found = list(gains(folder, method).values())
        if not found:
            continue
        y = len(names)
        names.append(f"{method.name} - {method.baseline}")
        axes.plot(found, [y] * len(found), "o", color="0.6", markersize=4)
        if len(found) > 1:
            mean, low, high = interval(found)
            axes.errorbar(mean, y, xerr=[[mean - low], [high - mean]], fmt="D", capsize=4)
    axes.axvline(0, color="0.3", linewidth=1)
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="AP gained", title="paired by seed, mean with 95 % interval")
    axes.grid(alpha=0.3, axis="x")
