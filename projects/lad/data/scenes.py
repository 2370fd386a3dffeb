"""Digit scenes: handwritten digits drawn on photographs, both from scikit-learn."""

from typing import NamedTuple

import numpy as np
from PIL import Image

SPLITS = ("train", "val")

_VAL_SCANS = 360
_VAL_PHOTO_SHARE = 0.3
_CROP_SIDES = (64, 192)
_DIGIT_SIDES = (12, 110)
_SIDE_EXPONENT = 0.6
_MAX_DIGITS = 10
_EMPTY_SHARE = 0.05
_CUT_SHARE = 0.15
_MIN_VISIBLE_INK = 0.6
_MAX_COVERED = 0.25
_MIN_CONTRAST = 80
_PLACING_ATTEMPTS = 20


class SceneSources(NamedTuple):
    """The scans (ink in [0, 1]), their classes and the photo regions of one split."""

    scans: np.ndarray  # (S, 8, 8) float32
    scan_indices: np.ndarray  # (S,) positions in load_digits
    classes: np.ndarray  # (S,) 0..9
    photos: list[np.ndarray]  # each (H, W, 3) uint8 RGB


class Scene(NamedTuple):
    """One image with its objects."""

    image: np.ndarray  # (size, size, 3) uint8 RGB
    boxes: np.ndarray  # (G, 4) int64 xywh in pixels, tight around the visible ink
    classes: np.ndarray  # (G,) int64, 0..9


def load_sources(split: str) -> SceneSources:
    """Loads the scans and photo regions of ``split`` ("train" or "val").

    The scans are split by a fixed permutation, the photos by width: val has the right 30 %.
    """
    from sklearn.datasets import load_digits, load_sample_images

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    indices = order[:_VAL_SCANS] if split == "val" else order[_VAL_SCANS:]
    photos = []
    for photo in load_sample_images().images:
        border = round(photo.shape[1] * (1 - _VAL_PHOTO_SHARE))
        photos.append(photo[:, border:] if split == "val" else photo[:, :border])
    scans = (digits.images[indices] / 16).astype(np.float32)
    return SceneSources(scans, indices, digits.target[indices], photos)


def make_scene(
    sources: SceneSources, split: str, index: int, *, image_size: int, seed: int
) -> Scene:
    """Draws a scene; equal arguments give equal scenes.

    About 5 % of the scenes are empty; the others get 1 to 10 digits, fewer where no place is found.
    At most a quarter of the smaller of two overlapping boxes is covered.

    Args:
        sources: of `load_sources`.
        split: "train" or "val".
        index: number of the scene within the split.
        image_size: side of the square image in pixels.
        seed: of the dataset.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    canvas = _photo_crop(sources.photos, image_size, rng)
    num_digits = 0 if rng.random() < _EMPTY_SHARE else rng.integers(1, _MAX_DIGITS + 1)
    boxes: list[list[int]] = []
    classes: list[int] = []
    for _ in range(num_digits):
        scan = rng.integers(len(sources.scans))
        for _ in range(_PLACING_ATTEMPTS):
            ink = _upscale_scan(sources.scans[scan], _random_side(image_size, rng))
            box = _draw(canvas, ink, boxes, rng)
            if box is not None:
                boxes.append(box)
                classes.append(int(sources.classes[scan]))
                break
    image = np.rint(canvas).astype(np.uint8)
    return Scene(image, np.array(boxes, np.int64).reshape(-1, 4), np.array(classes, np.int64))


def _photo_crop(photos: list[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a random square of a random photo as (size, size, 3) float32 in [0, 255]."""
    photo = photos[rng.integers(len(photos))]
    height, width = photo.shape[:2]
    side = int(rng.integers(_CROP_SIDES[0], min(_CROP_SIDES[1], height, width) + 1))
    top = rng.integers(height - side + 1)
    left = rng.integers(width - side + 1)
    crop = Image.fromarray(photo[top : top + side, left : left + side])
    pixels = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR), np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    # A random color cast and brightness, since a network would memorize only two photos.
    gains = rng.uniform(0.75, 1.2, size=3).astype(np.float32)
    return np.clip(pixels * gains, 0, 255)


def _random_side(image_size: int, rng: np.random.Generator) -> float:
    """Returns the longer side of a digit in pixels; the median is near the geometric mean."""
    low, high = _DIGIT_SIDES
    # Between log-uniform (exponent 1: a quarter too small to read) and uniform (no room for ten).
    return low * (min(high, 0.7 * image_size) / low) ** (rng.random() ** _SIDE_EXPONENT)


def _upscale_scan(scan: np.ndarray, side: float) -> np.ndarray:
    """Upscales an 8x8 scan to strokes with soft edges.

    Returns:
        (h, w) float32 opacity in [0, 1], cropped to opacity >= 0.5; max(h, w) is about ``side``.
    """
    rows, cols = np.flatnonzero(scan.any(axis=1)), np.flatnonzero(scan.any(axis=0))
    scan = scan[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    scale = side / max(scan.shape)
    padded = Image.fromarray(np.pad(scan, 1))
    new_size = (round(padded.width * scale), round(padded.height * scale))
    smooth = np.asarray(padded.resize(new_size, Image.Resampling.BICUBIC))
    opacity = np.clip((smooth - 0.4) / 0.2, 0, 1)
    x, y, width, height = _ink_box(opacity)
    return opacity[y : y + height, x : x + width]


def _ink_box(opacity: np.ndarray) -> tuple[int, int, int, int]:
    """Returns the xywh box tight around opacity >= 0.5."""
    ink = opacity >= 0.5
    rows, cols = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    x, y = int(cols[0]), int(rows[0])
    return x, y, int(cols[-1]) + 1 - x, int(rows[-1]) + 1 - y


def _draw(
    canvas: np.ndarray, opacity: np.ndarray, others: list[list[int]], rng: np.random.Generator
) -> list[int] | None:
    """Draws one digit into ``canvas`` at a random place.

    Returns:
        The xywh box of the visible ink; None, with the canvas unchanged, if too little of the digit
        would be visible, it would cover another one, or no color contrasts with the photo.
    """
    size = len(canvas)
    height, width = opacity.shape
    # A digit that may be cut can leave the image by up to half of its side.
    out_x, out_y = (width // 2, height // 2) if rng.random() < _CUT_SHARE else (0, 0)
    left = int(rng.integers(-out_x, size - width + out_x + 1))
    top = int(rng.integers(-out_y, size - height + out_y + 1))
    x0, y0 = max(left, 0), max(top, 0)
    visible = opacity[y0 - top : size - top, x0 - left : size - left]
    if (visible >= 0.5).sum() < _MIN_VISIBLE_INK * (opacity >= 0.5).sum():
        return None
    x, y, w, h = _ink_box(visible)
    box = [x0 + x, y0 + y, w, h]
    if any(_covered(box, other) > _MAX_COVERED for other in others):
        return None
    under = canvas[y0 : y0 + visible.shape[0], x0 : x0 + visible.shape[1]]
    color = _contrasting_color(under[visible >= 0.5], rng)
    if color is None:
        return None
    under += visible[..., None] * (color - under)
    return box


def _covered(a: list[int], b: list[int]) -> float:
    """Returns the share of the smaller of two xywh boxes that lies in the other."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])


def _contrasting_color(under: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Returns a (3,) float32 color that contrasts with 90 % of (M, 3) RGB pixels, if it does."""
    luminance_weights = np.array([0.299, 0.587, 0.114], np.float32)
    luminance = under @ luminance_weights
    dark = luminance.mean() > 127
    color = rng.uniform(*((0, 60) if dark else (195, 255)), size=3).astype(np.float32)
    contrast = np.abs(luminance - color @ luminance_weights)
    return color if np.mean(contrast >= _MIN_CONTRAST) >= 0.9 else None
