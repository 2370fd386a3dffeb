"""Digit scenes of 160 px, not resized. No flips: a mirrored digit is not a digit."""

from .coco import dataloader

dataloader.train.dataset.update(names="digits_train", filter_empty=False)
dataloader.train.mapper.augmentations = []
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 1

dataloader.test.dataset.names = "digits_val"
dataloader.test.mapper.augmentations = []
dataloader.test.num_workers = 1
