"""LGD of RetinaNet, ResNet-101."""

from ..common.models.backbones import resnet
from ..common.models.detectron2 import retinanet_p3_p7
from ..common.models.distillation import lgd
from ..common.weights import RESNET
from .retinanet_r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = lgd(retinanet_p3_p7(resnet(101)))
model.student_checkpoint = RESNET[101]
train.output_dir = "output/lgd/retinanet_r101_2x_ms"
