"""The small detector with SimOTA instead of PAA."""

from ..common.models.assigners import use_simota
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = use_simota(paa_small())
train.output_dir = "output/digits/simota"
