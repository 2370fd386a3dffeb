"""LAD and CrossKD on own data: labels and CrossKD from quick/teacher.py."""

from ..common.models.distillation import LOSSES
from .lad import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [LOSSES["crosskd"]]
train.output_dir = "output/quick/lad_crosskd"
