"""Sizes of boxes beside those of a config's anchors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lad.data.layouts import Photo
from lad.engine.fit import REACHED_IOU, resized_boxes
from lad.engine.setup import detectors
from lad.modeling.anchor_generator import AnchorGenerator


class BoxSizes(NamedTuple):
    """Boxes and anchors in pixels of the images that the network sees.

    Attributes:
        boxes: (G, 4) xyxy.
        anchors: sides of the square anchors, finest level first; empty for other anchors.
        reached: (G,) whether an anchor overlaps the box by `REACHED_IOU`; None for other anchors.
    """

    boxes: Tensor
    anchors: tuple[float, ...]
    reached: Tensor | None

    @classmethod
    def of(cls, config: DictConfig, photos: Iterable[Photo]) -> BoxSizes:
        """Returns the sizes for the image size and the anchors of a config's first detector."""
        augmentations = OmegaConf.select(config, "dataloader.test.mapper.augmentations")
        boxes = resized_boxes(photos, augmentations or [])
        node = detectors(config)[0][1].get("anchor_generator")
        anchors = instantiate(node) if node is not None else None
        if not isinstance(anchors, AnchorGenerator):
            return cls(boxes, (), None)
        return cls(boxes, anchors.sizes, anchors.best_iou(boxes) >= REACHED_IOU)

    @property
    def sides(self) -> Tensor:
        """The roots of the (G,) areas."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).prod(1).sqrt()

    @property
    def share(self) -> float | None:
        """The share of boxes that an anchor reaches; None for other anchors, and without boxes."""
        if self.reached is None or not len(self.boxes):
            return None
        return self.reached.float().mean().item()
