"""LGD of Detectron2's FCOS with GN, ResNet-50; no context object, as in the released config."""

from ..common.models.backbones import resnet
from ..common.models.detectron2 import fcos_p3_p7
from ..common.models.distillation import lgd
from ..common.weights import RESNET
from .retinanet_r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = lgd(fcos_p3_p7(resnet(50)), context=False)
model.student_checkpoint = RESNET[50]
train.output_dir = "output/lgd/fcos_r50_2x_ms"
