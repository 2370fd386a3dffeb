"""LAD and CrossKD together: labels and CrossKD from one teacher."""

from ..common.models.distillation import LOSSES
from .lad import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [LOSSES["crosskd"]]
train.output_dir = "output/digits/lad_crosskd"
