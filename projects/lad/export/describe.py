"""The metadata of a detector that is about to be exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from timm.layers import Conv2dSame
from torch import Tensor

from lad.export.metadata import Metadata
from lad.modeling.backbones.timm import PaddedSwinBlock
from lad.modeling.network import DenseNetwork

_ONE_SIZE = PaddedSwinBlock, Conv2dSame


def describe(
    network: DenseNetwork,
    mapper: DatasetMapper,
    *,
    class_names: Sequence[str],
    category_ids: Sequence[int] | None = None,
    size: tuple[int, int] | None = None,
    nms: bool = False,
) -> Metadata:
    """Returns the metadata of a detector's file.

    Args:
        network: to be exported.
        mapper: of the test images.
        class_names: by class number.
        category_ids: of the dataset by class number.
        size: height and width of the input; None for any.
        nms: whether NMS is inside.

    Raises:
        ValueError: if the network cannot be exported, or the size or the mapper does not fit.
    """
    if not isinstance(network, DenseNetwork):
        raise ValueError(f"{type(network).__name__} cannot be exported: it is no DenseNetwork")
    # With the sizes of their padding as formulas, torch.export did not end in 10 minutes.
    if size is None and any(isinstance(x, _ONE_SIZE) for x in network.modules()):
        raise ValueError(
            "Swin and timm's tf_* models are exported for one size only: choose --size HEIGHTxWIDTH"
        )
    settings = network.nms_settings
    backbone: Any = network.backbone
    multiple = backbone.size_divisibility or max(x.stride for x in backbone.output_shape().values())
    if size is not None:
        _check_size(size, multiple)
    order = mapper.image_format
    if order not in ("RGB", "BGR"):
        raise ValueError(f"dataloader.test.mapper.image_format={order}: export knows RGB and BGR")
    return Metadata(
        class_names=tuple(class_names),
        category_ids=None if category_ids is None else tuple(category_ids),
        channel_order=order,
        pixel_mean=_shortest(network.pixel_mean),
        pixel_std=_shortest(network.pixel_std),
        size=size,
        size_multiple=multiple,
        resize=_resize(mapper),
        score_threshold=settings.score_thresh,
        nms_iou=settings.nms_thresh,
        max_detections=settings.max_detections,
        score_voting=settings.score_voting and not nms,
        nms_inside=nms,
    )


def _shortest(values: Tensor) -> tuple[float, ...]:
    """Returns float32 values as a person writes them: 123.675, not 123.67500305175781."""
    return tuple(float(str(x)) for x in values.flatten().numpy())


def _check_size(size: tuple[int, int], multiple: int) -> None:
    if any(x <= 0 or x % multiple for x in size):
        height, width = (max(-(-x // multiple), 1) * multiple for x in size)
        raise ValueError(
            f"size {size[0]}x{size[1]}: height and width have to be multiples of {multiple}, such "
            f"as {height}x{width}"
        )


def _resize(mapper: DatasetMapper) -> tuple[int, int] | None:
    """Returns the lengths of the mapper's only `ResizeShortestEdge`; None without augmentations."""
    augmentations = list(mapper.augmentations.augs)
    if not augmentations:
        return None
    resize = augmentations[0]
    if len(augmentations) == 1 and isinstance(resize, T.ResizeShortestEdge):
        lengths = set(resize.short_edge_length)
        if len(lengths) == 1 and min(lengths) > 0:
            return int(min(lengths)), int(resize.max_size)
    raise ValueError(
        "dataloader.test.mapper.augmentations: export knows none, or one ResizeShortestEdge of one "
        f"length, but not {', '.join(map(str, augmentations))}"
    )
