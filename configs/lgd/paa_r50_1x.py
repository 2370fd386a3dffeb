"""LGD of PAA, ResNet-50, with the recipe of `retinanet_r50_1x`; not in the paper."""

from ..common.models.distillation import lgd
from ..common.models.paa import paa_resnet
from ..common.weights import RESNET
from .retinanet_r50_1x import dataloader, lr_multiplier, optimizer, train

model = lgd(paa_resnet(50))
model.student_checkpoint = RESNET[50]
train.output_dir = "output/lgd/paa_r50_1x"
