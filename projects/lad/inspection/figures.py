"""The page's pictures of one image as arrays, for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

MARKS = {"both": ("o", "#009e73"), "teacher": ("s", "#0072b2")}
STUDENT = ("^", "#e69f00")  # and of a model with one network
MAX_OBJECTS = 4  # whose costs are drawn
BINS = 24


def draw_figures(
    pixels: np.ndarray, objects: Sequence[Mapping], state: Mapping[str, Any], strides: Sequence[int]
) -> dict[str, np.ndarray]:
    """Draws the assignment, the costs and who teaches.

    Args:
        pixels: (H, W, 3) uint8 RGB, the image as the model sees it.
        objects: each with ``name`` and ``box``.
        state: what `to_data` returns for a batch of this image.
        strides: of the levels.

    Returns:
        (h, w, 3) uint8 RGB pictures by name; of one network none of who teaches, of a rule without
        costs none of these.
    """
    found = state["images"][0]["objects"]
    figures = {"assignment": _assignment(pixels, objects, found)}
    if any(x["costs"] for x in found):
        figures["costs"] = _costs(objects, found)
    if state["decisions"]:
        figures["teachers"] = _teachers(state, strides)
    return {name: _to_array(figure) for name, figure in figures.items()}


def _to_array(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _assignment(pixels: np.ndarray, objects: Sequence[Mapping], found: Sequence[Mapping]) -> Figure:
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(8, 8 * height / width + 0.5), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(pixels)
    axes.set(xticks=[], yticks=[])
    points: dict[str, list[tuple[float, float]]] = {}
    for number, (shown, each) in enumerate(zip(objects, found, strict=True), 1):
        x0, y0, x1, y1 = shown["box"]
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="#ffe600"))
        label = f"{number}: {shown['name']}"
        axes.text(x0, y0, label, va="top", backgroundcolor="#ffe600", fontsize=9, parse_math=False)
        assigned = each["assigned"]
        for index, (a, b, c, d) in enumerate(assigned["box"]):
            names = [name for name, mask in assigned["by"].items() if mask[index]]
            kind = names[0] if len(names) == 1 else "both"
            points.setdefault(kind, []).append(((a + c) / 2, (b + d) / 2))
    for kind, centers in sorted(points.items()):
        marker, color = MARKS.get(kind, STUDENT)
        label = f"{'both networks' if kind == 'both' else kind}: {len(centers)} anchors"
        x, y = np.array(centers).T
        axes.scatter(x, y, s=45, marker=marker, color=color, edgecolors="white", label=label)
    if points:
        figure.legend(loc="outside lower center", ncols=len(points))
    return figure


def _costs(objects: Sequence[Mapping], found: Sequence[Mapping]) -> Figure:
    rows = list(zip(objects, found, strict=True))[:MAX_OBJECTS]
    names = list(rows[0][1]["costs"])
    figure = Figure(figsize=(4.5 * len(names), 1.9 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), len(names), squeeze=False, sharex="row")
    for number, (own, (shown, each)) in enumerate(zip(axes, rows, strict=True), 1):
        values = np.concatenate([x["values"] for x in each["costs"].values()])
        low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
        edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
        for ax, (name, costs) in zip(own, each["costs"].items(), strict=True):
            _histogram(ax, costs, edges)
            ax.set_title(f"{number}: {shown['name']}, {name}", fontsize=9, parse_math=False)
    return figure


def _histogram(axes: Axes, costs: Mapping[str, Any], edges: np.ndarray) -> None:
    """Draws costs in bins, positives dark, with the Gaussians and the highest positive cost."""
    values, positive = np.array(costs["values"]), np.array(costs["positive"], dtype=bool)
    parts = [values[positive], values[~positive]]
    counts, *_ = axes.hist(parts, edges.tolist(), stacked=True, color=["#4a5663", "#c3cad3"])
    if costs["fit"]:
        x = np.linspace(edges[0], edges[-1], 200)
        scale = len(values) * (edges[1] - edges[0])
        columns = (costs["fit"][key] for key in ("means", "deviations", "weights"))
        styles = (("#009e73", "-"), ("#e69f00", "--"))
        for mean, deviation, weight, (color, line) in zip(*columns, styles, strict=True):
            density = np.exp(-0.5 * ((x - mean) / deviation) ** 2) / deviation / np.sqrt(2 * np.pi)
            axes.plot(x, scale * weight * density, color=color, linestyle=line)
    if costs["cut"] is not None:
        axes.axvline(costs["cut"], color="black", linestyle=":")
    axes.set_ylim(0, max(1, np.max(counts)) * 1.1)


def _teachers(state: Mapping[str, Any], strides: Sequence[int]) -> Figure:
    """Draws the indicators of batch, image and objects, and the decisions of every level."""
    image = state["images"][0]
    names = list(state["decisions"])
    width = 5 + 0.5 * len(image["objects"])
    figure = Figure(figsize=(width, 3.2 * len(names)), layout="constrained")
    rows = figure.subplots(len(names), 2, squeeze=False)
    for (left, right), name in zip(rows, names, strict=True):
        decisions = [state["decisions"][name], image["decisions"][name]]
        decisions += [x["decisions"]["object"][name] for x in image["objects"]]
        for network, (marker, color) in (("student", STUDENT), ("teacher", MARKS["teacher"])):
            heights = [np.nan if not x or x[network] is None else x[network] for x in decisions]
            left.plot(heights, linestyle="", marker=marker, color=color, label=network)
        labels = ["iteration", "image", *map(str, range(1, len(image["objects"]) + 1))]
        left.set_xticks(range(len(labels)), labels, rotation=90)
        left.set(title=name, ylabel="indicator: the higher teaches")
        left.legend()
        levels = [[x[name] for x in each["decisions"]["level"]] for each in image["objects"]]
        _decisions(right, levels, strides)
    return figure


def _decisions(axes: Axes, levels: Sequence[Sequence], strides: Sequence[int]) -> None:
    for network, (marker, color) in (("student", STUDENT), ("teacher", MARKS["teacher"])):
        points = [
            (column, row)
            for column, own in enumerate(levels)
            for row, decision in enumerate(own)
            if decision and decision["teaches"] == network
        ]
        axes.scatter(*np.array(points).reshape(-1, 2).T, marker=marker, color=color)
    axes.set_xticks(range(len(levels)), [str(x + 1) for x in range(len(levels))])
    axes.set_yticks(range(len(strides)), [f"stride {x}" for x in strides])
    axes.set(title="who teaches, by level", xlabel="object")
