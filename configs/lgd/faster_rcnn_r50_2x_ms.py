"""LGD of Detectron2's Faster R-CNN, ResNet-50: learning rate 0.02."""

from ..common.models.backbones import resnet
from ..common.models.distillation import lgd
from ..common.models.rcnn import faster_rcnn
from ..common.weights import RESNET
from .retinanet_r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = lgd(faster_rcnn(resnet(50)), context=False, detach_appearance=True)
model.student_checkpoint = RESNET[50]
optimizer.lr = 0.02
train.output_dir = "output/lgd/faster_rcnn_r50_2x_ms"
