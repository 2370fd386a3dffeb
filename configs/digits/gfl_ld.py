"""LD of GFL from a wider GFL: the teacher's box distributions."""

from ..common.models.distillation import LOSSES, distillation
from ..common.models.gfl import gfl_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = distillation(gfl_small(), [LOSSES["ld"]], teacher=gfl_small(width=48))
model.teacher_checkpoint = "output/digits/gfl_teacher/model_final.pth"
train.output_dir = "output/digits/gfl_ld"
