"""Blood cells (BCCD): photographs of 640x480, resized to 320x240."""

from .coco import dataloader

dataloader.train.dataset.names = "bccd_train"
dataloader.train.mapper.augmentations[0].update(short_edge_length=240, max_size=320)
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 1

dataloader.test.dataset.names = "bccd_val"
dataloader.test.mapper.augmentations[0].update(short_edge_length=240, max_size=320)
dataloader.test.num_workers = 1
