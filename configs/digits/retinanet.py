"""Detectron2's RetinaNet on digit scenes: its static rule, one square anchor per cell."""

from ..common.models.detectron2 import retinanet_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = retinanet_small()
train.output_dir = "output/digits/retinanet"
