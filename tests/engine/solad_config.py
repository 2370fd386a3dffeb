"""SoLAD of two of folder_config.py's detectors."""

from ...configs.common.models.distillation import solad
from ...configs.common.models.paa import paa_small
from .folder_config import dataloader, lr_multiplier, optimizer, train

model = solad(paa_small(width=8, channels=32), paa_small(width=8, channels=32))
