"""LAD of Detectron2's RetinaNet from the digit scenes' PAA teacher, which has equal anchors."""

from ..common.models.assigners import use_paa
from ..common.models.detectron2 import retinanet_small
from ..common.models.distillation import lad
from ..common.models.paa import paa_small
from .paa import dataloader, lr_multiplier, optimizer, train

model = lad(use_paa(retinanet_small()), paa_small(width=48))
model.teacher_checkpoint = "output/digits/teacher/model_final.pth"
train.output_dir = "output/digits/retinanet_lad"
