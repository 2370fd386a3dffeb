"""The teacher of quick/lad.py and quick/solad.py: a larger PAA, trained for longer."""

from ..common.models.backbones import paa_timm_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = paa_timm_small("resnet10t", channels=96)
train.update(output_dir="output/quick/teacher", epochs=40)
