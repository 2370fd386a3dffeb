"""Soft label, plain KL: ResNet-50 from PAA-R101 (1x), 12 epochs, long warm-up."""

from ..common.models.distillation import soft_label_loss
from .kl_gamma05_r50_from_r101_1x import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [soft_label_loss(kind="kl", gamma=0.0)]
train.output_dir = "output/soft_label/kl_gamma0_r50_from_r101_1x"
