"""LAD: the student is trained on the labels of the digit scenes' teacher."""

from ..common.models.distillation import lad
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = lad(paa_small(), paa_small(width=48))
model.teacher_checkpoint = "output/digits/teacher/model_final.pth"
train.output_dir = "output/digits/lad"
