"""COCO 2017 for the multi-scale rows: in training the short side is uniform in 640 to 800."""

from .coco import dataloader

dataloader.train.mapper.augmentations[0].update(short_edge_length=(640, 800), sample_style="range")
