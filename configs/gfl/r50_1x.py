"""GFL, ResNet-50, 12 epochs."""

from ..common.models.gfl import gfl_resnet
from ..paa.r50_1x import dataloader, lr_multiplier, optimizer, train

model = gfl_resnet(50)
train.output_dir = "output/gfl/r50_1x"
