"""One self-contained HTML file of an inspection."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor


def render(title: str, data: Mapping[str, Any]) -> str:
    """Returns the page, which loads nothing else.

    Args:
        title: any text.
        data: ``rule`` (a sentence), ``scope`` and ``indicator`` of the model's switch or None,
            ``networks``, ``strides``, ``images`` and ``checkpoints``. An image has ``name``,
            ``note`` (a sentence or ""), ``width``, ``height``, ``source`` (`image_source`) and
            ``objects``, each with ``name`` and ``box``. A checkpoint has ``name`` and what
            `to_data` returns for the images.

    Raises:
        ValueError: for a number that JSON does not have.
    """
    # In a script element only "<" could end the text; no part of it is read as HTML.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "title": html.escape(title),
        "style": _read("page.css"),
        "script": _read("page.js"),
        "data": text,
    }
    # In one pass, so that a placeholder in the data stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html")) + "\n"


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8").strip()


def to_pixels(image: Tensor, image_format: str) -> np.ndarray:
    """Returns (H, W, 3) uint8 RGB of a model's (3, H, W) input in RGB or BGR."""
    pixels = image.clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(pixels[..., ::-1] if image_format == "BGR" else pixels)


def image_source(pixels: np.ndarray) -> str:
    """Returns (H, W, 3) uint8 RGB as the address of a JPEG in the page."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
