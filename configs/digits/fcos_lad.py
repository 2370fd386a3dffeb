"""LAD of Detectron2's FCOS with SimOTA, from a wider FCOS: PAA has other anchors."""

from ..common.models.assigners import use_simota
from ..common.models.detectron2 import fcos_small
from ..common.models.distillation import lad
from .paa import dataloader, lr_multiplier, optimizer, train

model = lad(use_simota(fcos_small()), fcos_small(width=48))
model.teacher_checkpoint = "output/digits/fcos_teacher/model_final.pth"
train.output_dir = "output/digits/fcos_lad"
