"""PAA with conditional objectness (COP) and the IoU branch, ResNet-50, 12 epochs."""

from ..common.models.paa import cop, paa_resnet
from ..paa.r50_1x import dataloader, lr_multiplier, optimizer, train

model = cop(paa_resnet(50))
train.output_dir = "output/cop/cop_r50_1x"
