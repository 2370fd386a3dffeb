"""LAD and PKD together: labels and PKD from one teacher."""

from ..common.models.distillation import LOSSES
from .lad import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [LOSSES["pkd"]]
train.output_dir = "output/digits/lad_pkd"
