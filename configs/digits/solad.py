"""SoLAD: LAD plus soft labels."""

from ..common.models.distillation import solad
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = solad(paa_small(), paa_small(width=48))
model.teacher_checkpoint = "output/digits/teacher/model_final.pth"
train.output_dir = "output/digits/solad"
