"""The small detector with GFL's head and losses, and ATSS as in its paper."""

from ..common.models.gfl import gfl_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = gfl_small()
train.output_dir = "output/digits/gfl"
