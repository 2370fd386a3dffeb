"""LGD on detector_config.py's data; its backbone is frozen and not distilled in the first half."""

from ...configs.common.models.distillation import FREEZE_HOOK, lgd
from ...configs.common.models.paa import paa_small
from .detector_config import dataloader, lr_multiplier, optimizer, train

model = lgd(paa_small(width=8, channels=32), channels=32, label_width=4, start=0.5)
train.hooks = [train.hooks[-1], FREEZE_HOOK]
train.hooks[1].until = 0.5
