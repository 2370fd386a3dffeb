"""PGD of PAA: features weighted by the teacher's predictions."""

from ..common.models.distillation import LOSSES, distillation
from ..common.models.paa import paa_small
from .lad import dataloader, lr_multiplier, optimizer, train
from .lad import model as lad

model = distillation(paa_small(), [LOSSES["pgd"]], teacher=paa_small(width=48))
model.teacher_checkpoint = lad.teacher_checkpoint
train.output_dir = "output/digits/paa_pgd"
