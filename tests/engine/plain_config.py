"""The student of detector_config.py alone."""

from ...configs.common.models.paa import paa_small
from .detector_config import dataloader, lr_multiplier, optimizer, train

model = paa_small(width=8, channels=32)
train.hooks = []
del train.kill_at
