"""ATSS (with the IoU branch), ResNet-101, 12 epochs: the teacher of crosskd/atss_*.py."""

from ..common.models.assigners import use_atss
from ..paa.r101_1x import dataloader, lr_multiplier, model, optimizer, train

use_atss(model)
model.losses.box_weight = 2.0
train.output_dir = "output/atss/r101_1x"
