"""CoLAD (std/mean): ResNet-50 with a pre-trained PAA-R101 (1x), 12 epochs."""

from ..common.models.distillation import ROLE_SWITCH_HOOK, colad, stdmean_switch
from ..common.models.paa import paa_resnet
from ..common.weights import RESNET
from ..paa.r50_1x import dataloader, lr_multiplier, optimizer, train

model = colad(paa_resnet(50), paa_resnet(101), stdmean_switch())
model.student_checkpoint = RESNET[50]
model.teacher_checkpoint = "output/paa/r101_1x/model_final.pth"
train.update(init_checkpoint="", hooks=[ROLE_SWITCH_HOOK])
train.output_dir = "output/colad/r50_from_r101_1x_stdmean"
