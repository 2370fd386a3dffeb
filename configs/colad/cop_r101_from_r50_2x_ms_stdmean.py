"""CoLAD (std/mean): COP-R101 and PAA-R50 (3x MS), 24 epochs, multi-scale."""

from ..common.models.distillation import ROLE_SWITCH_HOOK, colad, stdmean_switch
from ..common.models.paa import cop, paa_resnet
from ..common.weights import RESNET
from ..paa.r101_2x_ms import dataloader, lr_multiplier, optimizer, train

model = colad(cop(paa_resnet(101)), paa_resnet(50), stdmean_switch())
model.student_checkpoint = RESNET[101]
model.teacher_checkpoint = "output/paa/r50_3x_ms/model_final.pth"
train.update(init_checkpoint="", hooks=[ROLE_SWITCH_HOOK])
train.output_dir = "output/colad/cop_r101_from_r50_2x_ms_stdmean"
