"""PKD of GFL: ResNet-50 from GFL-R101 (2x, multi-scale), 12 epochs."""

from ..common.models.distillation import LOSSES
from ..ld.r50_from_r101_1x import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [LOSSES["pkd"]]
train.output_dir = "output/pkd/gfl_r50_from_r101_1x"
