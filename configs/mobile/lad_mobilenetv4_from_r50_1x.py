"""LAD of a mobile-sized student, MobileNetV4-S, from PAA-R50 (1x). Not in the paper."""

from ..common.data.coco import dataloader
from ..common.models.backbones import paa_timm
from ..common.models.distillation import lad
from ..common.models.paa import paa_resnet
from ..common.optim import SGD as optimizer
from ..common.schedule import MAX_ITER_1X, schedule_1x
from ..common.train import train

model = lad(paa_timm("mobilenetv4_conv_small", channels=128), paa_resnet(50))
model.student_checkpoint = "weights/mobilenetv4_conv_small.pth"
model.teacher_checkpoint = "output/paa/r50_1x/model_final.pth"
lr_multiplier = schedule_1x()
train.update(max_iter=MAX_ITER_1X, output_dir="output/mobile/lad_mobilenetv4_from_r50_1x")
