"""COCO 2017 for the multi-scale rows: the short side is uniform in 640 to 800 while training."""

from .coco import dataloader

dataloader.train.mapper.augmentations[0].update(short_edge_length=(640, 800), sample_style="range")
