"""The small detector with ATSS instead of PAA: labels from geometry alone."""

from ..common.models.assigners import use_atss
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = use_atss(paa_small())
train.output_dir = "output/digits/atss"
