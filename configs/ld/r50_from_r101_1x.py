"""LD of GFL: ResNet-50 from GFL-R101 (2x, multi-scale), 12 epochs."""

from ..common.models.distillation import LOSSES, distillation
from ..common.models.gfl import gfl_resnet
from ..common.weights import RESNET
from ..gfl.r50_1x import dataloader, lr_multiplier, optimizer, train

model = distillation(gfl_resnet(50), [LOSSES["ld"]], teacher=gfl_resnet(101))
model.student_checkpoint = RESNET[50]
model.teacher_checkpoint = "output/gfl/r101_2x_ms/model_final.pth"
train.update(init_checkpoint="", output_dir="output/ld/r50_from_r101_1x")
