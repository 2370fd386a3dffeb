"""SoLAD: ResNet-50 with conditional objectness from PAA-Swin-B, 12 epochs."""

from ..common.models.paa import cop, paa_resnet
from .r50_from_swin_b_1x import dataloader, lr_multiplier, model, optimizer, train

cop(model.student)
train.output_dir = "output/solad/cop_r50_from_swin_b_1x"
