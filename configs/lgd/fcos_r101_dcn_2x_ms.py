"""LGD of FCOS, ResNet-101 with deformable convolutions.

The last 50,000 of 180,000 iterations do not distill.
"""

from ..common.models.backbones import resnet_dcn
from ..common.models.detectron2 import fcos_p3_p7
from ..common.models.distillation import lgd
from ..common.weights import RESNET
from .retinanet_r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = lgd(fcos_p3_p7(resnet_dcn(101)), until=13 / 18)
model.student_checkpoint = RESNET[101]
train.output_dir = "output/lgd/fcos_r101_dcn_2x_ms"
