"""CoLAD of the small and the wider network, both from scratch, with the Fisher indicator."""

from ..common.models.distillation import ROLE_SWITCH_HOOK, colad, fisher_switch
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = colad(paa_small(), paa_small(width=48), fisher_switch())
train.update(output_dir="output/digits/colad_fisher", hooks=[ROLE_SWITCH_HOOK])
