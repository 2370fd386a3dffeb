"""The teacher for FCOS on digit scenes: a wider FCOS, trained longer."""

from ..common.models.detectron2 import fcos_small
from .teacher import dataloader, lr_multiplier, optimizer, train

model = fcos_small(width=48)
train.output_dir = "output/digits/fcos_teacher"
