"""The teacher for GFL on digit scenes: a wider GFL, trained longer."""

from ..common.models.gfl import gfl_small
from .teacher import dataloader, lr_multiplier, optimizer, train

model = gfl_small(width=48)
train.output_dir = "output/digits/gfl_teacher"
