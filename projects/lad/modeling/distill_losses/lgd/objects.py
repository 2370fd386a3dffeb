"""A batch's objects as LGD sees them: descriptors and masks (LGD section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.layers import ROIAlign
from torch import Tensor

from lad.structures import Targets

MASK_SIZE = 7  # side of an instance mask's crop in a descriptor


class Objects(NamedTuple):
    """The objects of N images in M columns; the last column is the context if there is one.

    The context is the whole canvas without a class. An image without objects has one of box
    (0, 0, 1, 1) without a class, which is also its context.

    Example:
        Two images with two and no objects: with a context M is 3, and ``present`` is
        [[1, 1, 1], [0, 0, 1]]; without one M is 2, and ``present`` is [[1, 1], [1, 0]].

    Attributes:
        boxes: (N, M, 4) xyxy in pixels, inside the canvas.
        classes: (N, M) int64; -1 for none.
        present: (N, M) bool: not padding.
        masks: (N, M, H, W) bool masks of the instances; None for boxes.
        image_size: H and W of the padded images.
        context: whether the last column is the context.
    """

    boxes: Tensor
    classes: Tensor
    present: Tensor
    masks: Tensor | None
    image_size: tuple[int, int]
    context: bool

    @classmethod
    def from_targets(
        cls, targets: Targets, image_size: tuple[int, int], *, context: bool, masks: bool = False
    ) -> Objects:
        """Pads a batch's ground truth; the one place where LGD waits for a GPU.

        Raises:
            ValueError: if ``masks`` are wanted and the targets have none.
        """
        device, num_images = targets.boxes.device, len(targets.image_sizes)
        counts = torch.bincount(targets.image, minlength=num_images)
        columns = max(int(counts.max()), 1) + context
        rank = torch.arange(len(targets.image), device=device)
        at = targets.image, rank - (counts.cumsum(0) - counts)[targets.image]
        empty, last = counts == 0, -1 if context else 0

        height, width = image_size
        pixel = torch.tensor([0.0, 0, 1, 1], device=device)
        canvas = torch.tensor([0.0, 0, width, height], device=device)
        farthest = canvas[2:].repeat(2) - 1
        boxes = torch.zeros(num_images, columns, 4, device=device)
        boxes[at] = targets.boxes.clamp(min=0).minimum(farthest)
        others = canvas if context else boxes[:, last]
        boxes[:, last] = torch.where(empty[:, None], pixel, others)
        classes = torch.full((num_images, columns), -1, device=device)
        classes[at] = targets.classes
        present = torch.zeros_like(classes, dtype=torch.bool)
        present[at] = True
        present[:, last] |= empty | context

        padded = None
        if masks:
            if targets.masks is None:
                raise ValueError(
                    "LGD with masks=true needs instance masks: set "
                    "dataloader.train.mapper.use_instance_mask=true and "
                    "dataloader.train.mapper.instance_mask_format=bitmask"
                )
            padded = torch.zeros(num_images, columns, *image_size, dtype=torch.bool, device=device)
            mask_height, mask_width = targets.masks.shape[-2:]
            padded[(*at, slice(mask_height), slice(mask_width))] = targets.masks
            padded[:, last, 0, 0] |= empty
            if context:
                padded[:, last] |= ~empty[:, None, None]
        return cls(boxes, classes, present, padded, image_size, context)

    def descriptors(self, num_classes: int) -> Tensor:
        """Returns (N, M, 4 + K) descriptors: box and one-hot class, 0..1 mapped to -1..1.

        Boxes are in shares of the padded image. With masks 7 x 7 values of the mask in the box
        follow.
        """
        height, width = self.image_size
        one_hot = F.one_hot(self.classes + 1, num_classes + 1)[..., 1:]
        parts = [self.boxes / self.boxes.new_tensor([width, height] * 2), one_hot.float()]
        if self.masks is not None:
            crop = ROIAlign((MASK_SIZE, MASK_SIZE), 1.0, 0, aligned=True)
            index = torch.arange(self.present.numel(), device=self.boxes.device)
            boxes = torch.cat([index[:, None], self.boxes.flatten(0, 1)], dim=1)
            crops = crop(self.masks.flatten(0, 1)[:, None].float(), boxes) >= 0.5
            parts.append(crops.view(*self.present.shape, -1).float())
        return torch.cat(parts, dim=-1) * 2 - 1

    def cells(
        self, shapes: Sequence[Sequence[int]], *, half_cell: bool = False, one_cell: bool = False
    ) -> list[Tensor]:
        """Returns (N, M, H_l, W_l) float32 for each level: 1 in the cells of each object.

        A cell (u, v) is inside a box if its integer coordinates are, in units of the level's cells.

        Example:
            Box (10, 20, 100, 120) at stride 8 is 1.25 to 12.5 by 2.5 to 15: columns 2 to 12 and
            rows 3 to 15. A box narrower than a cell may contain no cell at all.

        Args:
            shapes: (H_l, W_l) of each level.
            half_cell: cells lie at (u + 0.5, v + 0.5), their centers.
            one_cell: a box without a row or column of cells takes the nearest.
        """
        if self.masks is not None:
            masks = self.masks.byte()
            return [F.interpolate(masks, tuple(x), mode="nearest").float() for x in shapes]
        result = []
        for height, width in shapes:
            columns = self._inside(0, width, half_cell, one_cell)
            rows = self._inside(1, height, half_cell, one_cell) * self.present[..., None]
            result.append(rows[..., :, None] * columns[..., None, :])
        return result

    def _inside(self, axis: int, size: int, half_cell: bool, one_cell: bool) -> Tensor:
        """Returns (N, M, size) float32: 1 where a column (axis 0) or row of cells meets the box."""
        scale = size / self.image_size[1 - axis]
        low, high = self.boxes[..., axis, None] * scale, self.boxes[..., axis + 2, None] * scale
        cell = torch.arange(size, device=low.device) + 0.5 * half_cell
        distance = (cell - (low + high) / 2).abs()
        inside = distance <= (high - low) / 2
        if one_cell:
            nearest = F.one_hot(distance.argmin(dim=-1), size).bool()
            inside = torch.where(inside.any(dim=-1, keepdim=True), inside, nearest)
        return inside.float()
