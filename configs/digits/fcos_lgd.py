"""LGD of Detectron2's FCOS."""

from ..common.models.detectron2 import fcos_small
from ..common.models.distillation import lgd
from .paa import dataloader, lr_multiplier, optimizer, train

model = lgd(fcos_small(), channels=32, label_width=16)
train.output_dir = "output/digits/fcos_lgd"
