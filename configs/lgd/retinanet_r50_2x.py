"""LGD of RetinaNet, ResNet-50, short side 800."""

from .retinanet_r50_2x_ms import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.mapper.augmentations[0].update(short_edge_length=800, sample_style="choice")
train.output_dir = "output/lgd/retinanet_r50_2x"
