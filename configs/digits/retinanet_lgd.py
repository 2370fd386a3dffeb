"""LGD of Detectron2's RetinaNet."""

from ..common.models.detectron2 import retinanet_small
from ..common.models.distillation import lgd
from .paa import dataloader, lr_multiplier, optimizer, train

model = lgd(retinanet_small(), channels=32, label_width=16)
train.output_dir = "output/digits/retinanet_lgd"
