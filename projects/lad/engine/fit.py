"""Image size and anchors that fit the boxes of own data."""

from __future__ import annotations

import copy
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lad.checkpoint.load import RANDOM
from lad.data.folders import clip_box
from lad.data.layouts import Photo
from lad.engine.setup import detectors
from lad.modeling.anchor_generator import AnchorGenerator

REACHED_IOU = 0.4  # of a box with its best anchor
SMALL_SIDE = 24.0  # pixels; at most a quarter of the boxes should be smaller
SHORT_SIDES = (320, 384, 448, 512, 576, 640)  # of images, from which one is chosen
SCALES = (2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)  # of anchors, in strides
_AUGMENTATIONS = "dataloader.{split}.mapper.augmentations"


def fit_settings(
    config: DictConfig, photos: Sequence[Photo], overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the image size and the anchors' scale, by key, that fit the training boxes.

    The short side is the smallest of `SHORT_SIDES` at which at most a quarter of the boxes have a
    side (the root of the area) below 24 pixels; images are not enlarged for it. The scale is
    `best_scale`. A frozen teacher was trained with anchors of its own, which the student has to
    share: its scale is read from the config.yaml beside its checkpoint.

    Args:
        config: with the overrides.
        photos: of the training split.
        overrides: those of the command line; what they set is not chosen.

    Raises:
        ValueError: if the teacher's config cannot be read.
    """
    config = copy.deepcopy(config)
    settings = _size_settings(config, photos, overrides)
    for key, value in settings.items():
        OmegaConf.update(config, key, value)
    keys = [
        f"{key}.anchor_generator.scale"
        for key, node in detectors(config)
        if OmegaConf.select(node, "anchor_generator.scale") is not None
    ]
    if not keys or any("anchor_generator" in override for override in overrides):
        return settings
    scale = _teachers_scale(config)
    if scale is None:
        anchors = detectors(config)[0][1].anchor_generator
        resize = _augmentations(config, "test")
        boxes = [resized_boxes(part, resize) for part in _by_class(photos)]
        scale = best_scale(boxes, anchors.strides, anchors.scale)
    return settings | dict.fromkeys(keys if scale is not None else [], scale)


def fitted_settings(config: DictConfig, folder: str) -> dict[str, Any]:
    """Returns the image size and anchors of a training, by key, from the config.yaml in its folder.

    Raises:
        ValueError: if it cannot be read.
    """
    keys = [
        f"{_AUGMENTATIONS.format(split='test')}.0.{x}" for x in ("short_edge_length", "max_size")
    ]
    keys += [f"{key}.anchor_generator.scale" for key, _ in detectors(config)]

    def values(config: Any) -> dict[str, Any]:
        found = {key: OmegaConf.select(config, key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    trained = _of_saved_config(folder, "training", values) if folder else None
    return {key: value for key, value in (trained or {}).items() if key in values(config)}


def best_scale(
    boxes: Sequence[Tensor], strides: Sequence[int], preferred: float = 4.0
) -> float | None:
    """Returns the scale of `SCALES` whose anchors fit boxes best; None without boxes.

    That is the highest mean IoU of a box with its best anchor, where each class counts the same, as
    in AP. Of scales that are equal within 0.01 it is the one nearest to ``preferred``, by their
    ratio.

    Args:
        boxes: (G, 4) of each class.
        strides: of the levels.
        preferred: another scale.
    """
    boxes = [x for x in boxes if len(x)]

    def quality(scale: float) -> tuple[float, float]:
        anchors = AnchorGenerator(strides=strides, scale=scale)
        iou = sum(anchors.best_iou(x).mean().item() for x in boxes) / len(boxes)
        return round(iou, 2), -abs(math.log(scale / preferred))

    return max(SCALES, key=quality) if boxes else None


def _size_settings(
    config: DictConfig, photos: Sequence[Photo], overrides: Sequence[str]
) -> dict[str, Any]:
    """Returns the sizes of both splits, or nothing where overrides or the config set others."""
    nodes = {split: _augmentations(config, split) for split in ("train", "test")}
    resized = all(x and isinstance(x[0].get("short_edge_length"), int) for x in nodes.values())
    if not resized or any(".augmentations" in override for override in overrides):
        return {}
    sides = torch.tensor([min(photo.width, photo.height) for photo in photos]).float()
    for short in SHORT_SIDES:
        node = copy.deepcopy(nodes["test"][0])
        node.update(short_edge_length=short, max_size=2 * short)
        boxes = resized_boxes(photos, [node])
        x0, y0, x1, y1 = boxes.unbind(1)
        side = ((x1 - x0) * (y1 - y0)).clamp(min=0).sqrt()
        if not len(side) or side.quantile(0.25) >= SMALL_SIDE or short >= sides.median():
            break
    return {
        f"{_AUGMENTATIONS.format(split=split)}.0.{key}": value
        for split in nodes
        for key, value in (("short_edge_length", short), ("max_size", 2 * short))
    }


def _by_class(photos: Sequence[Photo]) -> list[list[Photo]]:
    """Returns the photos of each class, with the objects of that class alone."""
    found: dict[int, list[Photo]] = defaultdict(list)
    for photo in photos:
        for label in {x["category_id"] for x in photo.objects}:
            objects = [x for x in photo.objects if x["category_id"] == label]
            found[label].append(photo._replace(objects=objects))
    return [found[label] for label in sorted(found)]


def _augmentations(config: DictConfig, split: str) -> Any:
    return OmegaConf.select(config, _AUGMENTATIONS.format(split=split)) or []


def _teachers_scale(config: DictConfig) -> float | None:
    """Returns the anchors' scale of a frozen teacher's training, None if nothing tells it."""
    checkpoint = config.model.get("teacher_checkpoint")
    if checkpoint in (None, "", RANDOM):
        return None
    nodes = _of_saved_config(os.path.dirname(checkpoint), "teacher", detectors) or []
    scales = [OmegaConf.select(node, "anchor_generator.scale") for _, node in nodes]
    return scales[0] if scales else None


def _of_saved_config(folder: str, whose: str, read: Callable[[Any], Any]) -> Any:
    """Returns what a function reads in the config.yaml of a run's folder, None if there is none.

    Raises:
        ValueError: if it cannot be read.
    """
    path = os.path.join(folder, "config.yaml")
    if not os.path.isfile(path):
        return None
    try:
        return read(OmegaConf.load(path))
    except Exception as error:  # whatever a damaged or foreign file raises
        raise ValueError(
            f"{path}: the {whose}'s config cannot be read; mend it or move it away"
        ) from error


def resized_boxes(photos: Iterable[Photo], augmentations: Iterable[DictConfig]) -> Tensor:
    """Returns all (G, 4) boxes in pixels of the images that the network sees.

    Args:
        photos: with their objects.
        augmentations: config nodes, of which only ResizeShortestEdge counts.
    """
    resize = [instantiate(node) for node in augmentations if "short_edge_length" in node]
    boxes = [np.zeros((0, 4))]
    for photo in photos:
        clipped = [box for x in photo.objects if (box := clip_box(x["bbox"], photo))]
        xyxy = np.array([(x, y, x + w, y + h) for x, y, w, h in clipped]).reshape(-1, 4)
        # Only its shape counts: no memory.
        image = np.broadcast_to(np.uint8(0), (photo.height, photo.width, 3))
        for augmentation in resize:
            transform: T.Transform = augmentation.get_transform(image)
            xyxy = transform.apply_box(xyxy)
        boxes.append(xyxy)
    return torch.from_numpy(np.concatenate(boxes)).float()
