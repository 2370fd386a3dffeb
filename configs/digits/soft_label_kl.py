"""Pure soft-label distillation (KL) from the digit scenes' teacher."""

from ..common.models.distillation import soft_label
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = soft_label(paa_small(), paa_small(width=48))
model.teacher_checkpoint = "output/digits/teacher/model_final.pth"
train.output_dir = "output/digits/soft_label_kl"
