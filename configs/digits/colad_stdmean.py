"""CoLAD of the small and the wider network, both from scratch, with the indicator std/mean."""

from ..common.models.distillation import ROLE_SWITCH_HOOK, colad, stdmean_switch
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = colad(paa_small(), paa_small(width=48), stdmean_switch())
train.update(output_dir="output/digits/colad_stdmean", hooks=[ROLE_SWITCH_HOOK])
