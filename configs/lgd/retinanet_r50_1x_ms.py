"""LGD of RetinaNet, ResNet-50: 90,000 iterations; the shares are those of 2x."""

from ..common.schedule import step_schedule
from .retinanet_r50_2x_ms import dataloader, model, optimizer, train

lr_multiplier = step_schedule(max_iter=90_000, drops=(60_000, 80_000), warmup_iters=1000)
train.update(max_iter=90_000, output_dir="output/lgd/retinanet_r50_1x_ms")
