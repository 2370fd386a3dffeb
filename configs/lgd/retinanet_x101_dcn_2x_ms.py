"""LGD of RetinaNet, ResNeXt-101 32x8d with deformable convolutions.

The last 50,000 of 180,000 iterations do not distill.
"""

from ..common.models.backbones import resnext101_32x8d_dcn
from ..common.models.detectron2 import retinanet_p3_p7
from ..common.models.distillation import lgd
from ..common.weights import RESNEXT101_32X8D
from .retinanet_r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = lgd(retinanet_p3_p7(resnext101_32x8d_dcn()), until=13 / 18)
model.student_checkpoint = RESNEXT101_32X8D
train.output_dir = "output/lgd/retinanet_x101_dcn_2x_ms"
