"""Runs an exported file, with ONNX Runtime or PyTorch."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lad.export.metadata import Metadata
from lad.export.numpy_postprocess import detect, to_image

SUFFIXES = (".onnx", ".pt2")
INPUTS = ("image", "image_size")
OUTPUTS = ("boxes", "scores", "classes")
PT2_METADATA = "lad.json"

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


class ExportedDetector:
    """A detector in an .onnx or .pt2 file, on the CPU.

    Args:
        path: of the file.
        threads: CPU threads of ONNX Runtime; 0 lets it choose.
        trusted: open a .pt2 file, too, which can run any code. An .onnx file cannot.

    Attributes:
        metadata: of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if `lad export` did not write it, a package is missing, or it is not trusted.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 0, trusted: bool = False):
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path}: there is no such file")
        try:
            if Path(path).suffix == ".onnx":
                self._run, strings = _open_onnx(os.fspath(path), threads)
            elif not trusted:
                raise ValueError(
                    "a .pt2 file can run any code: use an .onnx file; docs/security.md tells how "
                    "to open a .pt2 file of your own"
                )
            else:
                self._run, strings = _open_pt2(os.fspath(path))
            self.metadata = Metadata.from_strings(strings)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def __call__(self, image: np.ndarray) -> Arrays:
        """Returns the detections of an image, best first: (d, 4) boxes, (d,) scores and classes.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        pixels = self.prepare(image)
        size = pixels.shape[1], pixels.shape[2]
        found = self.detect(pixels)
        return to_image(*found, input_size=size, image_size=(image.shape[0], image.shape[1]))

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Returns an (H, W, 3) uint8 RGB image resized, (3, h, w) in the file's channel order."""
        height, width = self.metadata.resized(*image.shape[:2])
        if (height, width) != image.shape[:2]:
            resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            image = np.asarray(resized)
        if self.metadata.channel_order == "BGR":
            image = image[..., ::-1]
        return np.ascontiguousarray(image.transpose(2, 0, 1))

    def run(self, image: np.ndarray, image_size: tuple[int, int]) -> Arrays:
        """Returns the outputs: (n, 4) boxes, (n,) scores and (n,) classes.

        Args:
            image: (3, H, W) uint8.
            image_size: height and width of the image in its top left corner.
        """
        return self._run(image, np.array(image_size, dtype=np.int64))

    def pad(self, pixels: np.ndarray) -> np.ndarray:
        """Returns a (3, h, w) image in the top left corner of an input."""
        height, width = pixels.shape[1:]
        padded = np.zeros((3, *self.metadata.padded(height, width)), dtype=np.uint8)
        padded[:, :height, :width] = pixels
        return padded

    def detect(self, pixels: np.ndarray) -> Arrays:
        """Returns the detections of a resized image, best first, in its pixels.

        Args:
            pixels: (3, h, w) uint8 in the file's channel order.
        """
        outputs = self.run(self.pad(pixels), (pixels.shape[1], pixels.shape[2]))
        data = self.metadata
        if data.nms_inside:
            found = outputs[1] > data.score_threshold
            return outputs[0][found], outputs[1][found], outputs[2][found]
        return detect(
            *outputs,
            score_threshold=data.score_threshold,
            nms_iou=data.nms_iou,
            max_detections=data.max_detections,
            score_voting=data.score_voting,
        )


def is_exported(path: str | os.PathLike) -> bool:
    """Whether a path is named like an exported file."""
    return Path(path).suffix in SUFFIXES


def require(*packages: str) -> None:
    """Raises ValueError if a package of the extra "export" is missing."""
    for name in packages:
        try:
            import_module(name)
        except ImportError as error:
            raise ValueError(
                f"it needs the package {name}: pip install 'lad[export]' ({error})"
            ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what PyTorch's exporters print and warn of; their errors are raised."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(disabled)


def _open_onnx(path: str, threads: int) -> tuple[Callable[..., Any], dict[str, str]]:
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes
        reason = str(error).splitlines()[0]
        raise ValueError(f"ONNX Runtime cannot open it: {reason}") from error

    def run(image: np.ndarray, image_size: np.ndarray) -> list[np.ndarray]:
        try:
            return session.run(list(OUTPUTS), {"image": image, "image_size": image_size})
        except Exception as error:  # as above
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path}: ONNX Runtime fails: {reason}") from error

    return run, session.get_modelmeta().custom_metadata_map


def _open_pt2(path: str) -> tuple[Callable[..., Any], dict[str, str]]:
    import torch
    import torchvision  # noqa: F401  its NMS may be part of the program

    extra = {PT2_METADATA: ""}
    try:
        with quiet():
            program = torch.export.load(path, extra_files=extra).module()
    except Exception as error:  # whatever unpacking raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"it is no exported program of PyTorch: {reason}") from error

    def run(image: np.ndarray, image_size: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = program(torch.from_numpy(image), torch.from_numpy(image_size))
        return [x.numpy() for x in outputs]

    return run, json.loads(extra[PT2_METADATA] or "{}")
