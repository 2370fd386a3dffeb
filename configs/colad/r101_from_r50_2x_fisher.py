"""CoLAD (Fisher score): ResNet-101 with a pre-trained PAA-R50 (1x), 24 epochs."""

from ..common.models.distillation import ROLE_SWITCH_HOOK, colad, fisher_switch
from ..common.models.paa import paa_resnet
from ..common.weights import RESNET
from ..paa.r101_2x import dataloader, lr_multiplier, optimizer, train

model = colad(paa_resnet(101), paa_resnet(50), fisher_switch())
model.student_checkpoint = RESNET[101]
model.teacher_checkpoint = "output/paa/r50_1x/model_final.pth"
train.update(init_checkpoint="", hooks=[ROLE_SWITCH_HOOK])
train.output_dir = "output/colad/r101_from_r50_2x_fisher"
