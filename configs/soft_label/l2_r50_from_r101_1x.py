"""Soft label, L2: ResNet-50 from PAA-R101 (1x), 12 epochs."""

from ..common.models.distillation import soft_label_loss
from ..common.schedule import schedule_1x
from .kl_gamma05_r50_from_r101_1x import dataloader, model, optimizer, train

model.distill_losses = [soft_label_loss(kind="l2")]
lr_multiplier = schedule_1x()
train.output_dir = "output/soft_label/l2_r50_from_r101_1x"
