"""Detectron2's RetinaNet on detector_config.py's data."""

from ...configs.common.models.detectron2 import retinanet_small
from .detector_config import dataloader, lr_multiplier, optimizer, train

model = retinanet_small(width=8, channels=32)
train.hooks = [train.hooks[-1]]
