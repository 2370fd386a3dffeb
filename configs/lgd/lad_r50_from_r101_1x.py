"""LAD and LGD together: ResNet-50 on the labels of PAA-R101 (1x), with LAD's recipe."""

from ..common.models.distillation import lgd_loss
from ..lad.r50_from_r101_1x import dataloader, lr_multiplier, model, optimizer, train

model.distill_losses = [lgd_loss(model.student)]
train.output_dir = "output/lgd/lad_r50_from_r101_1x"
