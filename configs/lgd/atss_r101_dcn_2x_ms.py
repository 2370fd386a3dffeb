"""LGD of ATSS, ResNet-101 with deformable convolutions."""

from ..common.models.assigners import use_atss
from ..common.models.backbones import paa_resnet_dcn
from ..common.models.distillation import lgd
from ..common.weights import RESNET
from .retinanet_r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = lgd(use_atss(paa_resnet_dcn(101)))
model.student_checkpoint = RESNET[101]
model.student.losses.box_weight = 2.0
train.output_dir = "output/lgd/atss_r101_dcn_2x_ms"
