"""SoLAD (LAD plus soft labels: KL, gamma 0.5): ResNet-50 from PAA-R101 (1x), 12 epochs."""

from ..common.models.distillation import solad
from ..common.models.paa import paa_resnet
from ..common.weights import RESNET
from ..paa.r50_1x import dataloader, lr_multiplier, optimizer, train

model = solad(paa_resnet(50), paa_resnet(101))
model.student_checkpoint = RESNET[50]
model.teacher_checkpoint = "output/paa/r101_1x/model_final.pth"
train.update(init_checkpoint="", output_dir="output/solad/r50_from_r101_1x")
