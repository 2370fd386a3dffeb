"""Own data, short side 320: train_net.py's --data. Without it, digit scenes."""

from .coco import dataloader

dataloader.train.dataset.update(names="digits_train", filter_empty=False)
dataloader.train.mapper.augmentations[0].update(short_edge_length=320, max_size=640)
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 1

dataloader.test.dataset.names = "digits_val"
dataloader.test.mapper.augmentations[0].update(short_edge_length=320, max_size=640)
dataloader.test.num_workers = 1
