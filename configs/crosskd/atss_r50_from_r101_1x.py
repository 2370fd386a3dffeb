"""CrossKD of ATSS: ResNet-50, 12 epochs, from ATSS-R101 (1x)."""

from ..common.models.assigners import use_atss
from .paa_r50_from_r101_1x import dataloader, lr_multiplier, model, optimizer, train

use_atss(model)
model.student.losses.box_weight = 2.0
model.teacher_checkpoint = "output/atss/r101_1x/model_final.pth"
train.output_dir = "output/crosskd/atss_r50_from_r101_1x"
