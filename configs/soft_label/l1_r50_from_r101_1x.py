"""Soft label, L1: ResNet-50 from PAA-R101 (1x), 12 epochs, long warm-up."""

from ..common.models.distillation import soft_label_loss
from .kl_gamma05_r50_from_r101_1x import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [soft_label_loss(kind="l1")]
train.output_dir = "output/soft_label/l1_r50_from_r101_1x"
