"""What an exported file says about itself, needed to feed it and to read its outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lad import __version__


@dataclass(frozen=True)
class Metadata:
    """The contract of an exported file, kept in it as one JSON value per field.

    Attributes:
        class_names: by class number.
        category_ids: of the dataset by class number; None if they are unknown.
        channel_order: of the image, "RGB" or "BGR".
        pixel_mean: per channel in that order, subtracted inside.
        pixel_std: per channel, divided by inside.
        size: height and width of the input; None for any multiples of ``size_multiple``, at least
            two of them.
        size_multiple: of height and width, in pixels.
        resize: length of an image's short side and largest length of its long side, which images
            are resized to; None for their own size.
        score_threshold: detections score above this.
        nms_iou: of class-wise non-maximum suppression.
        max_detections: per image.
        score_voting: whether kept boxes are moved to the mean of those around them.
        nms_inside: whether the outputs are detections; else NMS is still to be done.
        lad_version: of the package that wrote the file.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...] | None
    channel_order: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    size: tuple[int, int] | None
    size_multiple: int
    resize: tuple[int, int] | None
    score_threshold: float
    nms_iou: float
    max_detections: int
    score_voting: bool
    nms_inside: bool
    lad_version: str = __version__

    def to_strings(self) -> dict[str, str]:
        """Returns the fields as JSON."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> Metadata:
        """Reads what `to_strings` wrote; other keys are left out.

        Raises:
            ValueError: if a field is missing or is no JSON.
        """
        missing = [name for name in cls.__dataclass_fields__ if name not in values]
        if missing:
            raise ValueError(f"its metadata lack {', '.join(missing)}: write it with `lad export`")
        fields = {name: json.loads(values[name]) for name in cls.__dataclass_fields__}
        return cls(**{name: _to_tuple(value) for name, value in fields.items()})

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size that an image is resized to, as Detectron2's `ResizeShortestEdge` does.

        Example: with resize=(320, 640) an image of 480 x 640 becomes 320 x 427; in a file of size
        (256, 384) it is made smaller to fit, 256 x 341.
        """
        new = float(height), float(width)
        if self.resize:
            short, longest = self.resize
            scale = short / min(height, width)
            new = (short, scale * width) if height < width else (scale * height, short)
            if max(new) > longest:
                scale = longest / max(new)
                new = new[0] * scale, new[1] * scale
        rounded = int(new[0] + 0.5), int(new[1] + 0.5)
        if self.size and (rounded[0] > self.size[0] or rounded[1] > self.size[1]):
            scale = min(self.size[0] / height, self.size[1] / width)
            rounded = int(height * scale + 0.5), int(width * scale + 0.5)
        return max(rounded[0], 1), max(rounded[1], 1)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size of the input for a resized image."""
        if self.size:
            return self.size
        step = self.size_multiple
        return max(-(-height // step), 2) * step, max(-(-width // step), 2) * step


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
