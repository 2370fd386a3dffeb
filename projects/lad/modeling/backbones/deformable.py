"""Modulated deformable convolution (v2, arXiv 1811.11168) on torchvision's operator.

Detectron2's needs its compiled extension; names and channel order of the weights are the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone.resnet import BottleneckBlock
from fvcore.nn import weight_init
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv(Conv2d):
    """A convolution with an offset and a weight per kernel element and cell."""

    def forward(self, x: Tensor, offset_and_mask: Tensor) -> Tensor:
        """Convolves in float32, also under autocast.

        Args:
            x: (N, C, H, W).
            offset_and_mask: (N, 3k, H', W') for k kernel elements: 2k offsets in cells, (dy, dx) of
                each element in turn, then k logits of the samples' weights.
        """
        offsets = offset_and_mask.shape[1] // 3 * 2
        # The operator needs one type for all, and positions need more precision than half floats.
        with torch.autocast(x.device.type, enabled=False):
            values = offset_and_mask.float()
            out = deform_conv2d(
                x.float(),
                values[:, :offsets],
                self.weight.float(),
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                mask=values[:, offsets:].sigmoid(),
            )
        out = out.to(x.dtype)
        return out if self.norm is None else self.norm(out)


class DeformableBottleneckBlock(BottleneckBlock):
    """A bottleneck with a deformable 3x3 convolution, whose offsets are initially 0.

    Args:
        in_channels: of the block.
        out_channels: of the block.
        bottleneck_channels: of the 3x3 convolution.
        norm: Detectron2's name of the norm, or a class.
        **options: of Detectron2's `BottleneckBlock`.
    """

    conv2: Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        norm: Any = "BN",
        **options: Any,
    ):
        super().__init__(
            in_channels, out_channels, bottleneck_channels=bottleneck_channels, norm=norm, **options
        )
        plain = self.conv2
        shape: dict[str, Any] = {
            "kernel_size": 3,
            "stride": plain.stride,
            "padding": plain.padding,
            "dilation": plain.dilation,
        }
        self.conv2_offset = Conv2d(bottleneck_channels, 27, **shape)
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)
        self.conv2 = DeformableConv(
            bottleneck_channels,
            bottleneck_channels,
            **shape,
            groups=plain.groups,
            bias=False,
            norm=get_norm(norm, bottleneck_channels),
        )
        weight_init.c2_msra_fill(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        out = F.relu(self.conv1(x))
        out = F.relu(self.conv2(out, self.conv2_offset(out)))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.conv3(out) + shortcut)
