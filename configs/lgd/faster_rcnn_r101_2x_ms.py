"""LGD of Faster R-CNN, ResNet-101."""

from ..common.models.backbones import resnet
from ..common.models.distillation import lgd
from ..common.models.rcnn import faster_rcnn
from ..common.weights import RESNET
from .faster_rcnn_r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = lgd(faster_rcnn(resnet(101)), context=False, detach_appearance=True)
model.student_checkpoint = RESNET[101]
train.output_dir = "output/lgd/faster_rcnn_r101_2x_ms"
