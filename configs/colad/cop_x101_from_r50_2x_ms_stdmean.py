"""CoLAD (std/mean): COP-X101 (64x4d) and PAA-R50 (3x MS), 24 epochs, multi-scale."""

from ..common.models.backbones import paa_resnext101
from ..common.models.distillation import ROLE_SWITCH_HOOK, colad, stdmean_switch
from ..common.models.paa import cop, paa_resnet
from ..common.weights import RESNEXT101_64X4D
from ..paa.x101_2x_ms import dataloader, lr_multiplier, optimizer, train

model = colad(cop(paa_resnext101()), paa_resnet(50), stdmean_switch())
model.student_checkpoint = RESNEXT101_64X4D
model.teacher_checkpoint = "output/paa/r50_3x_ms/model_final.pth"
train.update(init_checkpoint="", hooks=[ROLE_SWITCH_HOOK])
train.output_dir = "output/colad/cop_x101_from_r50_2x_ms_stdmean"
