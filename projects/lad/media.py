"""Images and videos: finding, reading as RGB arrays, writing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lad.data import images

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_PIXELS = 180_000_000  # of an image, about Pillow's own limit
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
# `Video` reports files that FFmpeg cannot read, so FFmpeg need not; OpenCV reads this on first use.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class Input(NamedTuple):
    """An image or video file.

    Attributes:
        path: of the file.
        name: of its output, relative to the output folder: the path in the folder that was given,
            or the file's own name.
    """

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """Whether the file's name is that of a video."""
        return self.path.suffix.lower() in VIDEOS


def find_inputs(patterns: Sequence[str], leave_out: str | Path | None = None) -> list[Input]:
    """Returns the images and videos of files, folders (with their subfolders) and globs.

    Args:
        patterns: a file is taken whatever its name ends in.
        leave_out: a folder that is not searched, such as that of the output.

    Raises:
        FileNotFoundError: if there is no such file, or nothing in a folder.
    """
    found: list[Input] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inputs = _in_folder(path, leave_out)
        elif path.exists() or not has_magic(pattern):
            inputs = [Input(path, Path(path.name))]
        else:
            inputs = [
                Input(x, Path(x.name)) for x in map(Path, sorted(glob(pattern, recursive=True)))
            ]
            inputs = [x for x in inputs if _is_media(x.path)]
        if not inputs:
            raise FileNotFoundError(f"{pattern}: there are no images or videos; name others")
        if not inputs[0].path.exists():
            raise FileNotFoundError(f"{pattern}: there is no such file")
        found += inputs
    return list({x.path.resolve(): x for x in found}.values())


def _in_folder(folder: Path, leave_out: str | Path | None) -> list[Input]:
    left = None if leave_out is None else Path(leave_out).resolve()
    if left and folder.resolve() not in left.parents:
        left = None  # all would be left out
    return [
        Input(path, path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if _is_media(path) and left not in path.resolve().parents
    ]


def _is_media(path: Path) -> bool:
    known = path.suffix.lower() in IMAGES + VIDEOS
    return known and path.is_file() and not path.name.startswith(".")


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image as training and evaluation do, turned as its EXIF says.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image, or is damaged.
    """
    try:
        return images.read_image(str(path), "RGB", max_pixels=MAX_PIXELS)
    except images.UnreadableImage as error:
        cause = error.__cause__
        if isinstance(cause, FileNotFoundError):
            raise FileNotFoundError(f"{path}: there is no such file") from error
        reason = getattr(cause, "strerror", None) or "it is no image, or is damaged"
        if type(cause) is ValueError:  # it can be read, but not used
            reason = str(cause)
        raise ValueError(f"{path}: {reason}; leave it out") from error


class Video:
    """The frames of a video, (H, W, 3) uint8 RGB.

    Args:
        path: of the file.

    Attributes:
        rate: frames per second.
        num_frames: as the file says, which may be wrong; 0 if it does not.

    Raises:
        ValueError: if there is no frame to read.
    """

    def __init__(self, path: str | Path):
        self._capture = cv2.VideoCapture(str(path))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else 25.0
        self.num_frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self._first = self._read()
        if self._first is None:
            raise ValueError(f"{path}: it is no video that OpenCV reads; leave it out")

    def __iter__(self) -> Iterator[np.ndarray]:
        frame = self._first
        while frame is not None:
            yield frame
            frame = self._read()
        self._capture.release()

    def _read(self) -> np.ndarray | None:
        read, frame = self._capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if read else None


class VideoWriter:
    """Writes RGB frames of one size as an .mp4 file.

    Args:
        path: of the file.
        rate: frames per second.
    """

    def __init__(self, path: str | Path, rate: float):
        self.path = str(path)
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Adds a frame.

        Raises:
            OSError: if OpenCV cannot write the file.
        """
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            size = frame.shape[1], frame.shape[0]
            self._writer = cv2.VideoWriter(self.path, codec, self._rate, size)
            if not self._writer.isOpened():
                raise OSError(f"{self.path}: OpenCV cannot write it; use a build with FFmpeg")
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Completes the file."""
        if self._writer is not None:
            self._writer.release()
