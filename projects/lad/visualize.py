"""Pictures: detections, ground truth beside them, features, curves and roles over a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from detectron2.data import Metadata
from detectron2.structures import BoxMode, Instances
from detectron2.utils.colormap import colormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lad.media import read_image
from lad.metrics import read_metrics, series

MIN_SIDE, MAX_SIDE = 480, 4096  # of drawn images in pixels
COLORS = [tuple(color) for color in colormap(rgb=True, maximum=255).astype(int).tolist()]


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


def plot_features(
    image: np.ndarray,
    boxes: np.ndarray,
    rows: Mapping[str, Sequence[Tensor]],
    path: str | Path,
) -> None:
    """Draws an image's feature maps as PNG, a row for each network and a column for each level.

    A cell's color is the root mean square over the channels, each normalized over the map.

    Args:
        image: (H, W, 3) uint8, as the network sees it.
        boxes: (G, 4) xyxy of the objects in pixels.
        rows: (C, H_l, W_l) maps of each level, finest first, by name.
        path: of the PNG.
    """
    height, width = image.shape[:2]
    columns = 1 + max(map(len, rows.values()))
    size = (2.4 * columns, 2.4 * len(rows) * height / width + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    for row, (axes, (name, maps)) in enumerate(
        zip(figure.subplots(len(rows), columns, squeeze=False), rows.items(), strict=True)
    ):
        axes[0].imshow(image)
        axes[0].set_ylabel(name)
        for left, top, right, bottom in boxes:
            corner, sides = (left, top), (right - left, bottom - top)
            axes[0].add_patch(Rectangle(corner, *sides, fill=False, color="yellow"))
        for level, (ax, x) in enumerate(zip(axes[1:], maps, strict=False)):
            normalized = F.layer_norm(x.detach().float().cpu(), x.shape[-2:])
            # Maps may cover the image's padding, too.
            ax.imshow(normalized.square().mean(0).sqrt().numpy(), cmap="viridis")
            if row == 0:
                ax.set_title(f"level {level + 1}: {x.shape[2]}x{x.shape[1]}")
        for ax in axes:
            ax.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def draw_detections(
    record: Mapping, detections: Instances, metadata: Metadata, *, threshold: float = 0.6
) -> np.ndarray:
    """Draws an image's ground truth and its detections side by side, as `draw_boxes` does.

    Args:
        record: Detectron2's dataset dict of the image.
        detections: in the image's own size.
        metadata: of the dataset.
        threshold: detections that score less are left out.

    Returns:
        (s H, 2 s W, 3) uint8 RGB of an image enlarged s times.
    """
    image = read_image(record["file_name"])
    names = metadata.get("thing_classes") or ()
    truth = record.get("annotations", ())
    boxes = [BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS) for x in truth]
    classes = [x["category_id"] for x in truth]
    labels = [_class_name(names, number) for number in classes]
    left = draw_boxes(image, np.array(boxes).reshape(-1, 4), classes, labels)
    kept = detections[detections.scores > threshold].to("cpu")
    classes, scores = kept.pred_classes.tolist(), kept.scores.tolist()
    labels = [f"{_class_name(names, x)} {y:.0%}" for x, y in zip(classes, scores, strict=True)]
    right = draw_boxes(image, kept.pred_boxes.tensor.numpy(), classes, labels)
    return np.concatenate([np.asarray(left), np.asarray(right)], axis=1)


def _class_name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, classes: Sequence[int], labels: Sequence[str]
) -> Image.Image:
    """Draws boxes in the colors of their classes, the first on top.

    An image whose short side is below 480 px is enlarged by a whole number.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) xyxy in pixels of the image.
        classes: n class numbers.
        labels: n texts.
    """
    height, width = image.shape[:2]
    scale = max(1, min(-(-MIN_SIDE // min(height, width)), MAX_SIDE // max(height, width)))
    size = width * scale, height * scale
    picture = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    canvas = ImageDraw.Draw(picture)
    short = min(size)
    font = ImageFont.truetype(findfont("DejaVu Sans"), max(13, short // 45))
    for index in reversed(range(len(boxes))):
        color = COLORS[classes[index] % len(COLORS)]
        box = (boxes[index] * scale).tolist()
        canvas.rectangle(box, outline=color, width=max(2, short // 240))
        text_width, text_height = canvas.textbbox((0, 0), labels[index], font=font)[2:]
        # Above the box, or inside it at the upper border of the image.
        x = max(0, min(box[0], size[0] - text_width - 4))
        y = box[1] - text_height - 3 if box[1] > text_height + 3 else box[1]
        canvas.rectangle((x, y, x + text_width + 4, y + text_height + 3), fill=color)
        light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
        canvas.text((x + 2, y + 1), labels[index], font=font, fill="black" if light else "white")
    return picture
