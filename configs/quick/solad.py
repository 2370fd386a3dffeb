"""SoLAD on own data: LAD plus the soft labels of quick/teacher.py."""

from ..common.models.backbones import paa_timm_small
from ..common.models.distillation import solad
from .paa import dataloader, lr_multiplier, optimizer, train

model = solad(
    paa_timm_small("mobilenetv4_conv_small"),
    paa_timm_small("resnet10t", channels=96),
)
model.teacher_checkpoint = "output/quick/teacher/model_final.pth"
train.output_dir = "output/quick/solad"
