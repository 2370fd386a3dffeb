"""Reading of image files: 8-bit pixels of any common format, or one line about what is wrong."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from detectron2.data import DatasetMapper, detection_utils
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image

MAX_PIXELS = 100_000_000  # of an image; decoded it has three bytes per pixel


class UnreadableImage(ValueError):
    """An image file cannot be used. The message names it, says why and what to do."""

    @property
    def line(self) -> str:
        """The message alone, also after the error has come from a loading process."""
        return str(self).splitlines()[-1].rpartition(f"{type(self).__name__}: ")[2]


def read_image(
    file_name: str,
    format: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads an image as Detectron2's ``read_image``, turned as its EXIF orientation says.

    16-bit grayscale is scaled to 8 bits (its high byte), which Pillow does for 16-bit colors only.

    Args:
        file_name: of the image.
        format: one of Pillow's modes, "BGR" or "YUV-BT.601".
        size: the width and height that the image is said to have; None for any.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        (H, W, C) uint8, (H, W, 3) for "RGB" and "BGR".

    Raises:
        UnreadableImage: if it is no image, is damaged, has another size or too many pixels, or
            holds numbers that have no 8-bit scale.
    """
    with _named(file_name), PathManager.open(file_name, "rb") as file, opened(file) as image:
        check_size(shown_size(image), size, max_pixels)
        image.load()  # turns a TIFF, which has to be turned but once
        turned = detection_utils._apply_exif_orientation(_to_8_bit(image))
        check_size(turned.size, size, max_pixels)
        return detection_utils.convert_PIL_to_numpy(turned, format)


def check_header(file_name: str, size: tuple[int, int] | None, max_pixels: int) -> None:
    """Raises UnreadableImage if the header of an image shows that `read_image` would."""
    with _named(file_name), PathManager.open(file_name, "rb") as file, opened(file) as image:
        check_size(shown_size(image), size, max_pixels)


@contextlib.contextmanager
def _named(file_name: str) -> Iterator[None]:
    """Makes UnreadableImage of whatever reading this file raises."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder raises
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise UnreadableImage(f"{file_name}: {reason}: replace or remove it") from error


@contextlib.contextmanager
def opened(file: Any) -> Iterator[Image.Image]:
    """Opens an image without Pillow's own limit of pixels, and without its warnings."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Returns width and height of an opened image when it is turned as its EXIF data say."""
    if image.format == "TIFF":  # Pillow has turned its size already
        return image.size
    # Asked for EXIF data that is not in the header, Pillow decodes a whole PNG.
    exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
    width, height = image.size
    turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def check_size(found: tuple[int, int], said: tuple[int, int] | None, max_pixels: int) -> None:
    """Raises ValueError if an image has another size than it is said to have, or is too large."""
    if said is not None and found != said:
        raise ValueError(
            f"it is {found[0]}x{found[1]} (turned as its EXIF data say), but the annotations say "
            f"{said[0]}x{said[1]}"
        )
    if found[0] * found[1] > max_pixels:
        raise ValueError(
            f"it has {found[0]}x{found[1]} pixels, more than {max_pixels} (in training: "
            "dataloader.train.mapper.max_pixels)"
        )


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Returns an image whose grayscale numbers are 8-bit, with its EXIF data.

    Raises:
        ValueError: if its numbers have no known scale.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN):
        exif = image.getexif()
        scaled = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        scaled.info["exif"] = exif.tobytes()
        return scaled
    if image.mode in ("I", "F"):
        kind = "whole" if image.mode == "I" else "floating-point"
        raise ValueError(f"it holds 32-bit {kind} numbers; save it with 8 bits per channel")
    return image


_SIXTEEN = ("PNG", "PPM")  # formats whose numbers Pillow reads as 32-bit ones


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class ImageMapper(DatasetMapper):
    """Detectron2's ``DatasetMapper``, which reads images by `read_image`.

    Args:
        is_train: whether to keep the labels.
        max_pixels: larger images are unreadable.
        options: as for ``DatasetMapper``.
    """

    def __init__(self, is_train: bool, *, max_pixels: int = MAX_PIXELS, **options: Any):
        super().__init__(is_train, **options)
        self.max_pixels = max_pixels

    def __call__(self, dataset_dict: dict) -> dict:
        """Maps a dataset dict to a model's input.

        Raises:
            UnreadableImage: if its image cannot be used.
        """
        reader = partial(read_image, size=_said(dataset_dict), max_pixels=self.max_pixels)
        original = detection_utils.read_image
        detection_utils.read_image = reader
        try:
            return super().__call__(dataset_dict)
        finally:
            detection_utils.read_image = original

    def check(self, dataset_dict: dict) -> None:
        """Raises UnreadableImage if the header of an image shows that it cannot be used."""
        check_header(dataset_dict["file_name"], _said(dataset_dict), self.max_pixels)


def _said(dataset_dict: dict) -> tuple[int, int] | None:
    if "width" not in dataset_dict or "height" not in dataset_dict:
        return None
    return dataset_dict["width"], dataset_dict["height"]
