"""PKD of PAA: ResNet-50 on its own labels and PKD from PAA-R101 (1x), 12 epochs."""

from ..common.models.distillation import LOSSES, distillation
from ..common.models.paa import paa_resnet
from ..lad.r50_from_r101_1x import dataloader, lr_multiplier, optimizer, train
from ..lad.r50_from_r101_1x import model as lad

model = distillation(paa_resnet(50), [LOSSES["pkd"]], teacher=paa_resnet(101))
model.student_checkpoint = lad.student_checkpoint
model.teacher_checkpoint = lad.teacher_checkpoint
train.output_dir = "output/pkd/paa_r50_from_r101_1x"
