"""LAD and BCKD together: labels and BCKD from one teacher."""

from ..common.models.distillation import LOSSES
from .lad import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [LOSSES["bckd"]]
train.output_dir = "output/digits/lad_bckd"
