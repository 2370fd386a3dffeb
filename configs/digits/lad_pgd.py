"""LAD and PGD together: labels and PGD from one teacher."""

from ..common.models.distillation import LOSSES
from .lad import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [LOSSES["pgd"]]
train.output_dir = "output/digits/lad_pgd"
