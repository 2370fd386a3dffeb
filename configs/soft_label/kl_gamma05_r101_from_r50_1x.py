"""Soft label: ResNet-101 from PAA-R50 (1x), 12 epochs.

Table 3 does not name the loss; this is the best of table 2 (KL, gamma 0.5, long warm-up).
"""

from ..common.models.distillation import soft_label, soft_label_loss
from ..common.models.paa import paa_resnet
from ..common.schedule import schedule_1x
from ..common.weights import RESNET
from ..paa.r101_1x import dataloader, optimizer, train

model = soft_label(paa_resnet(101), paa_resnet(50), soft_label_loss(kind="kl", gamma=0.5))
model.student_checkpoint = RESNET[101]
model.teacher_checkpoint = "output/paa/r50_1x/model_final.pth"
lr_multiplier = schedule_1x(warmup_iters=3000)
train.update(init_checkpoint="", output_dir="output/soft_label/kl_gamma05_r101_from_r50_1x")
