"""LGD of PAA: a teacher made of the student's features and the labels."""

from ..common.models.distillation import lgd
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = lgd(paa_small(), channels=32, label_width=16)
train.output_dir = "output/digits/paa_lgd"
