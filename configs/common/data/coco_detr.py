"""COCO 2017 with the augmentation of Swin and DETR: short side 480 to 800, random crops."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

CROP = [
    L(T.ResizeShortestEdge)(
        short_edge_length=[400, 500, 600], max_size=1333, sample_style="choice"
    ),
    L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
]

dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(prob=0.5, horizontal=True),
    L(T.RandomApply)(tfm_or_aug=L(T.AugmentationList)(augs=CROP), prob=0.5),
    L(T.ResizeShortestEdge)(
        short_edge_length=list(range(480, 801, 32)), max_size=1333, sample_style="choice"
    ),
]
