"""LAD and LD of GFL together: the teacher's labels and its box distributions."""

from ..common.models.distillation import LOSSES
from .gfl_lad import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [LOSSES["ld"]]
train.output_dir = "output/digits/gfl_lad_ld"
