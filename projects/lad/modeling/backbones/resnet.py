"""ResNets and ResNeXts in torchvision's style (stride in the 3x3) on Detectron2's blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import Tensor, nn

from lad.modeling.backbones.deformable import DeformableBottleneckBlock

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class FixedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with fixed statistics and trained affine parameters ("BN in eval mode").

    Detectron2's FrozenBN fixes the affine parameters too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes with the running statistics, in training too."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


NORMS = {"FixedBN": FixedBatchNorm2d}


class LastLevelP6P7NoReLU(LastLevelP6P7):
    """P6 and P7 by stride-2 convolutions without a ReLU between them, as in the official code."""

    def forward(self, c5: Tensor) -> list[Tensor]:
        """Returns P6 and P7 from ``in_feature``'s map."""
        p6 = self.p6(c5)
        return [p6, self.p7(p6)]


def build_resnet(
    *,
    depth: int = 50,
    norm: str = "FixedBN",
    freeze_at: int = 2,
    out_features: Sequence[str] = ("res3", "res4", "res5"),
    width: int = 64,
    num_groups: int = 1,
    width_per_group: int = 64,
    deform_stages: Sequence[str] = (),
) -> ResNet:
    """Builds a ResNet.

    Args:
        depth: 10, 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        norm: "FixedBN" (fixed statistics, trained affine: for pre-trained weights), or any of
            Detectron2's names: "BN", "GN", "SyncBN", "FrozenBN".
        freeze_at: number of frozen parts: stem, res2, res3 ...; 2 freezes stem and res2.
        out_features: stages to return.
        width: channels of the stem; the stages have 1, 2, 4, 8 times as many (x 4 in bottlenecks).
        num_groups: of the 3x3 convolutions in bottlenecks; ResNeXt-101 64x4d has 64.
        width_per_group: channels of each of these groups in res2, for a ``width`` of 64; 4 in
            ResNeXt-101 64x4d.
        deform_stages: stages whose 3x3 convolutions are deformable (v2); bottlenecks only.

    Raises:
        ValueError: for another depth, an unknown stage, or groups or deformable stages without
            bottlenecks.
    """
    if depth not in BLOCKS:
        raise ValueError(f"depth={depth}: choose one of {sorted(BLOCKS)}")
    unknown = sorted(set(deform_stages) - {"res2", "res3", "res4", "res5"})
    if unknown:
        raise ValueError(f"deform_stages has {unknown[0]}: choose from res2, res3, res4, res5")
    bottleneck = depth >= 50
    if not bottleneck and (num_groups > 1 or deform_stages):
        raise ValueError(
            f"depth={depth} has no bottlenecks: num_groups and deform_stages need depth 50 or more"
        )
    norm_layer = NORMS.get(norm, norm)
    stages, in_channels = [], width
    for index, num_blocks in enumerate(BLOCKS[depth]):
        channels = width * 2**index
        out_channels = channels * 4 if bottleneck else channels
        block, options = BasicBlock, {}
        if bottleneck:
            deformable = f"res{index + 2}" in deform_stages
            block = DeformableBottleneckBlock if deformable else BottleneckBlock
            options = {
                "bottleneck_channels": channels * width_per_group // 64 * num_groups,
                "num_groups": num_groups,
                "stride_in_1x1": False,
            }
        stages.append(
            ResNet.make_stage(
                block,
                num_blocks,
                stride_per_block=[1 if index == 0 else 2] + [1] * (num_blocks - 1),
                in_channels=in_channels,
                out_channels=out_channels,
                norm=norm_layer,
                **options,
            )
        )
        in_channels = out_channels
    stem = BasicStem(in_channels=3, out_channels=width, norm=norm_layer)
    return ResNet(stem, stages, out_features=list(out_features)).freeze(freeze_at)
