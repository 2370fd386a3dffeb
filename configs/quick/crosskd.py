"""CrossKD on own data: the student's features through the head of quick/teacher.py."""

from ..common.models.backbones import paa_timm_small
from ..common.models.distillation import LOSSES, distillation
from .paa import dataloader, lr_multiplier, optimizer, train

model = distillation(
    paa_timm_small("mobilenetv4_conv_small"),
    [LOSSES["crosskd"]],
    teacher=paa_timm_small("resnet10t", channels=96),
)
model.teacher_checkpoint = "output/quick/teacher/model_final.pth"
train.output_dir = "output/quick/crosskd"
