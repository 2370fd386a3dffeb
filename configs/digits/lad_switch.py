"""LAD with dynamic switch: the network with the higher std/mean makes the labels."""

from ..common.models.distillation import ROLE_SWITCH_HOOK, lad, stdmean_switch
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = lad(paa_small(), paa_small(width=48), switch=stdmean_switch())
model.teacher_checkpoint = "output/digits/teacher/model_final.pth"
train.output_dir = "output/digits/lad_switch"
train.hooks = [ROLE_SWITCH_HOOK]
