"""LGD of Faster R-CNN, ResNeXt-101 32x8d with deformable convolutions.

The last 50,000 of 180,000 iterations do not distill.
"""

from ..common.models.backbones import resnext101_32x8d_dcn
from ..common.models.distillation import lgd
from ..common.models.rcnn import faster_rcnn
from ..common.weights import RESNEXT101_32X8D
from .faster_rcnn_r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = lgd(
    faster_rcnn(resnext101_32x8d_dcn()), context=False, detach_appearance=True, until=13 / 18
)
model.student_checkpoint = RESNEXT101_32X8D
train.output_dir = "output/lgd/faster_rcnn_x101_dcn_2x_ms"
