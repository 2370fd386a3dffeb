"""The small detector with TAL instead of PAA."""

from ..common.models.assigners import use_tal
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = use_tal(paa_small())
train.output_dir = "output/digits/tal"
