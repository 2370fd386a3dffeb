"""LAD of GFL from a wider GFL, with PAA on costs for GFL's scores: ATSS is static."""

from ..common.models.assigners import use_gfl_paa
from ..common.models.distillation import lad
from ..common.models.gfl import gfl_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = use_gfl_paa(lad(gfl_small(), gfl_small(width=48)))
model.teacher_checkpoint = "output/digits/gfl_teacher/model_final.pth"
train.output_dir = "output/digits/gfl_lad"
