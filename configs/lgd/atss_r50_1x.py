"""LGD of ATSS (with the IoU branch), ResNet-50: 90,000 iterations, short side 800."""

from ..common.models.assigners import use_atss
from ..common.models.distillation import lgd
from ..common.models.paa import paa_resnet
from ..common.weights import RESNET
from .retinanet_r50_1x import dataloader, lr_multiplier, optimizer, train

model = lgd(use_atss(paa_resnet(50)))
model.student_checkpoint = RESNET[50]
model.student.losses.box_weight = 2.0
train.output_dir = "output/lgd/atss_r50_1x"
