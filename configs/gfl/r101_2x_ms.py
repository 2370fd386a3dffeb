"""GFL, ResNet-101, 24 epochs, short side 480 to 800: LD's teacher."""

from ..common.models.gfl import gfl_resnet
from ..paa.r101_2x_ms import dataloader, lr_multiplier, optimizer, train

dataloader.train.mapper.augmentations[0].short_edge_length = (480, 800)
model = gfl_resnet(101)
train.output_dir = "output/gfl/r101_2x_ms"
