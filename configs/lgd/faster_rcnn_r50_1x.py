"""LGD of Faster R-CNN, ResNet-50: 90,000 iterations, short side 800."""

from ..common.schedule import step_schedule
from .faster_rcnn_r50_2x_ms import dataloader, model, optimizer, train

dataloader.train.mapper.augmentations[0].update(short_edge_length=800, sample_style="choice")
lr_multiplier = step_schedule(max_iter=90_000, drops=(60_000, 80_000), warmup_iters=1000)
train.update(max_iter=90_000, output_dir="output/lgd/faster_rcnn_r50_1x")
