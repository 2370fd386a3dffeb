"""LAD of detector_config.py's networks."""

from ...configs.common.models.distillation import lad
from ...configs.common.models.paa import paa_small
from .detector_config import dataloader, lr_multiplier, optimizer, train

model = lad(paa_small(width=8, channels=32), paa_small(width=16, channels=32))
train.hooks = []
del train.kill_at
