"""The config that wrote tests/data/checkpoints/colad_v0.pth."""

from ...configs.common.models.distillation import colad, stdmean_switch
from ...configs.common.models.paa import paa_small
from ...configs.common.optim import SGD as optimizer
from ...configs.common.schedule import cosine_schedule
from .detector_config import dataloader, train

model = colad(paa_small(width=2, channels=32), paa_small(width=2, channels=32), stdmean_switch())
model.student.head.num_convs = model.teacher.head.num_convs = 1
optimizer.lr = 1e-3
optimizer.momentum = 0.0
train.max_iter = 2
lr_multiplier = cosine_schedule(max_iter=8, warmup_iters=2)
