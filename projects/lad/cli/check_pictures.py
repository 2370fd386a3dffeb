"""Pictures of labeled images and their boxes, as SVG inside an HTML page."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO

import torch
from PIL import Image

from lad.data.layouts import Photo
from lad.engine.box_sizes import BoxSizes
from lad.media import read_image
from lad.visualize import COLORS

THUMBNAIL = 240  # pixels, the longer side
MAX_POINTS = 1500
PLOT = 360.0  # units of the plot's side

Box = Sequence[float]  # x, y, width, height in pixels
Region = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def picture(photo: Photo, entries: Iterable[Mapping], *, around: Box | None = None) -> str:
    """Draws an image with boxes in the colors of their classes.

    Args:
        photo: an image.
        entries: the objects to draw.
        around: a box that the picture is cut out around; None for the whole image, with room for
            boxes that leave it.

    Returns:
        An SVG with the pixels inside; without them if the image cannot be decoded.
    """
    shown = [
        (entry["bbox"], entry["category_id"])
        for entry in entries
        if all(map(math.isfinite, entry["bbox"]))
    ]
    if around is not None and all(map(math.isfinite, around)):
        region = region_around(around, photo)
    else:
        region = region_with(photo, [box for box, _ in shown])
    left, top, right, bottom = region
    width, height = right - left, bottom - top
    part = max(left, 0), max(top, 0), min(right, photo.width), min(bottom, photo.height)
    data = thumbnail(photo, part)
    name = escape(photo.path.name)
    parts = [
        f'<svg class="photo" role="img" aria-label="{name}" '
        f'viewBox="{left:.6g} {top:.6g} {width:.6g} {height:.6g}"><title>{name}</title>'
    ]
    if data:
        parts.append(
            f'<image x="{part[0]:.6g}" y="{part[1]:.6g}" width="{part[2] - part[0]:.6g}" '
            f'height="{part[3] - part[1]:.6g}" preserveAspectRatio="none" href="{data}"/>'
        )
    parts += [_drawn(box, label, max(width, height)) for box, label in shown]
    return "".join([*parts, "</svg>"])


def _drawn(box: Box, label: int, size: float) -> str:
    """Draws a box, or a circle around a box that would not be seen."""
    x, y, width, height = box
    color = "#{:02x}{:02x}{:02x}".format(*COLORS[label % len(COLORS)])
    if min(width, height) > 0:
        shape = f'<rect x="{x:.6g}" y="{y:.6g}" width="{width:.6g}" height="{height:.6g}"'
    else:
        shape = f'<circle cx="{x:.6g}" cy="{y:.6g}" r="{size / 20:.6g}"'
    return f'{shape} class="halo"/>{shape} class="box" stroke="{color}"/>'


def region_around(box: Box, photo: Photo) -> Region:
    """Returns a square of three times a box's side, at least a quarter of the image's."""
    x, y, width, height = box
    side = max(3 * max(width, height), min(photo.width, photo.height) / 4, 32)
    side = min(side, max(photo.width, photo.height))
    left = min(max(x + width / 2, 0), photo.width) - side / 2
    top = min(max(y + height / 2, 0), photo.height) - side / 2
    return left, top, left + side, top + side


def region_with(photo: Photo, boxes: Iterable[Box]) -> Region:
    """Returns the whole image with room for boxes, of at most half an image on each side."""
    left, top, right, bottom = 0.0, 0.0, float(photo.width), float(photo.height)
    for x, y, width, height in boxes:
        left, top = min(left, x), min(top, y)
        right, bottom = max(right, x + width), max(bottom, y + height)
    x, y = photo.width / 2, photo.height / 2
    return max(left, -x), max(top, -y), min(right, 3 * x), min(bottom, 3 * y)


def thumbnail(photo: Photo, region: Region) -> str:
    """Returns a part of an image as a small JPEG in a data address, "" if it is damaged."""
    try:
        image = Image.fromarray(read_image(photo.path))
    except ValueError:
        return ""
    left, top, right, bottom = (round(x) for x in region)
    image = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def size_plot(sizes: BoxSizes) -> str:
    """Draws widths and heights of boxes on logarithmic axes, with the anchors on the diagonal."""
    sides = sizes.boxes[:, 2:] - sizes.boxes[:, :2]
    keep = torch.linspace(0, len(sides) - 1, min(len(sides), MAX_POINTS)).long()
    values = torch.cat([sides.flatten(), sides.new_tensor(sizes.anchors)]).clamp(min=1).log2()
    low, high = math.floor(values.min()), math.floor(values.max()) + 1

    def place(value: float) -> float:
        share = (math.log2(max(value, 1)) - low) / (high - low)
        return round(share * PLOT, 1)

    parts = []
    for exponent in range(low, high + 1):
        at, label = place(2**exponent), 2**exponent
        parts.append(
            f'<path class="grid" d="M{at} 0V{PLOT:g}M0 {PLOT - at:g}H{PLOT:g}"/>'
            f'<text x="{at}" y="{PLOT + 18:g}" text-anchor="middle">{label}</text>'
            f'<text x="-8" y="{PLOT - at + 4:g}" text-anchor="end">{label}</text>'
        )
    for index in keep.tolist():
        x, y = (place(value) for value in sides[index].tolist())
        reached = sizes.reached is None or bool(sizes.reached[index])
        kind = "reached" if reached else "missed"
        parts.append(f'<circle class="{kind}" cx="{x}" cy="{PLOT - y:.1f}" r="2.5"/>')
    for side in sizes.anchors:
        at = place(side)
        parts.append(
            f'<rect class="anchor" x="{at - 5:g}" y="{PLOT - at - 5:g}" width="10" height="10">'
            f"<title>anchor of {side:g} px</title></rect>"
        )
    return (
        f'<svg class="plot" role="img" aria-label="widths and heights of the boxes" '
        f'viewBox="-44 -10 {PLOT + 60:g} {PLOT + 52:g}">{"".join(parts)}'
        f'<text x="{PLOT / 2:g}" y="{PLOT + 38:g}" text-anchor="middle">width in pixels</text>'
        f'<text x="-34" y="{PLOT / 2:g}" text-anchor="middle" '
        f'transform="rotate(-90 -34 {PLOT / 2:g})">height</text></svg>'
    )
