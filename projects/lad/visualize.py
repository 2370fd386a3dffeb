"""Pictures: ground truth beside detections, curves and teaching roles over a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.visualizer import Visualizer
from matplotlib.figure import Figure
from PIL import Image

from lad.metrics import read_metrics, series


def plot_curves(
    runs: Mapping[str, str | Path], keys: Sequence[str], path: str | Path, label: str
) -> None:
    """Draws metrics over iterations, one line per run and key, as PNG.

    Args:
        runs: metrics.json of each run by name.
        keys: metrics to draw; absent ones are left out.
        path: of the PNG.
        label: of the vertical axis.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, metrics in runs.items():
        rows = read_metrics(metrics)
        for key in keys:
            iterations, values = series(rows, key)
            if iterations:
                text = f"{name}: {key}" if len(keys) > 1 else name
                axes.plot(iterations, values, label=text, marker="." if len(values) < 20 else "")
    axes.set(xlabel="iteration", ylabel=label)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.savefig(path, dpi=120)


def plot_roles(metrics: str | Path, path: str | Path) -> None:
    """Draws a run's indicators and teaching roles from its metrics.json as a PNG."""
    rows = read_metrics(metrics)
    figure = Figure(figsize=(8, 5), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True)
    for name in ("student", "teacher"):
        top.plot(*series(rows, f"switch/{name}"), label=name)
    top.set(ylabel="indicator (median of a log period)")
    top.legend()
    bottom.step(*series(rows, "switch/student_taught"), where="mid", label="student taught")
    bottom.plot(*series(rows, "switch/student_share"), label="share of all steps so far")
    bottom.set(xlabel="iteration", ylabel="student taught", ylim=(-0.05, 1.05))
    bottom.legend()
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def draw_detections(
    record: Mapping, detections: Instances, metadata: Metadata, *, threshold: float = 0.6
) -> np.ndarray:
    """Draws an image's ground truth and its detections side by side.

    Args:
        record: Detectron2's dataset dict of the image.
        detections: in the image's own size.
        metadata: of the dataset.
        threshold: detections that score less are left out.

    Returns:
        (H, 2 W, 3) uint8 RGB.
    """
    image = np.asarray(Image.open(record["file_name"]).convert("RGB"))
    truth = Visualizer(image, metadata).draw_dataset_dict(dict(record))
    kept = detections[detections.scores > threshold].to("cpu")
    found = Visualizer(image, metadata).draw_instance_predictions(kept)
    return np.concatenate([truth.get_image(), found.get_image()], axis=1)
