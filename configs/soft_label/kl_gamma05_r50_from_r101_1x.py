"""Soft label, KL with gamma 0.5: ResNet-50 from PAA-R101 (1x), 12 epochs, long warm-up."""

from ..common.models.distillation import soft_label, soft_label_loss
from ..common.models.paa import paa_resnet
from ..common.schedule import schedule_1x
from ..common.weights import RESNET
from ..paa.r50_1x import dataloader, optimizer, train

model = soft_label(paa_resnet(50), paa_resnet(101), soft_label_loss(kind="kl", gamma=0.5))
model.student_checkpoint = RESNET[50]
model.teacher_checkpoint = "output/paa/r101_1x/model_final.pth"
lr_multiplier = schedule_1x(warmup_iters=3000)
train.update(init_checkpoint="", output_dir="output/soft_label/kl_gamma05_r50_from_r101_1x")
