"""LAD: ResNet-18 on the labels of PAA-R50 (1x), 12 epochs."""

from ..common.models.distillation import lad
from ..common.models.paa import paa_resnet
from ..common.weights import RESNET
from ..paa.r18_1x import dataloader, lr_multiplier, optimizer, train

model = lad(paa_resnet(18), paa_resnet(50))
model.student_checkpoint = RESNET[18]
model.teacher_checkpoint = "output/paa/r50_1x/model_final.pth"
train.update(init_checkpoint="", output_dir="output/lad/r18_from_r50_1x")
