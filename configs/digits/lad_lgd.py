"""LAD and LGD together."""

from ..common.models.distillation import lgd_loss
from .lad import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [lgd_loss(model.student, channels=32, label_width=16)]
train.output_dir = "output/digits/lad_lgd"
