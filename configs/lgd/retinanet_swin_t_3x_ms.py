"""LGD of RetinaNet, Swin-T: 270,000 iterations with AdamW."""

from ..common.models.backbones import swin
from ..common.models.detectron2 import retinanet_p3_p7
from ..common.models.distillation import lgd
from ..common.optim import AdamW as optimizer
from ..common.schedule import step_schedule
from ..common.weights import SWIN
from .retinanet_r50_2x_ms import dataloader, train

model = lgd(retinanet_p3_p7(swin("T"), res5_channels=768), start=30_000 / 270_000)
model.student_checkpoint = SWIN["T"]
lr_multiplier = step_schedule(max_iter=270_000, drops=(210_000, 250_000), warmup_iters=1000)
train.update(max_iter=270_000, output_dir="output/lgd/retinanet_swin_t_3x_ms")
train.hooks[0].until = 20_000 / 270_000
