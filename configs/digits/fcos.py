"""Detectron2's FCOS on digit scenes, with its own static rule."""

from ..common.models.detectron2 import fcos_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = fcos_small()
train.output_dir = "output/digits/fcos"
