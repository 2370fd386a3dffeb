"""PAA, ResNeXt-101 64x4d with deformable convolutions (v2), 24 epochs, multi-scale."""

from ..common.models.backbones import paa_resnext101
from ..common.weights import RESNEXT101_64X4D
from .r101_2x_ms import dataloader, lr_multiplier, optimizer, train

model = paa_resnext101(dcn=True)
train.update(init_checkpoint=RESNEXT101_64X4D, output_dir="output/paa/x101_dcn_2x_ms")
