"""LAD and PKD together: ResNet-50 from PAA-R101 (1x), 12 epochs."""

from ..common.models.distillation import LOSSES
from .r50_from_r101_1x import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [LOSSES["pkd"]]
train.output_dir = "output/lad/r50_from_r101_1x_pkd"
