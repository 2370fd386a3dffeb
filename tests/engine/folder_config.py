"""A tiny detector for --data: seconds."""

from ...configs.common.models.paa import paa_small
from ...configs.quick.paa import dataloader, lr_multiplier, optimizer, train

model = paa_small(width=8, channels=32)
dataloader.train.num_workers = dataloader.test.num_workers = 0
for split in ("train", "test"):
    dataloader[split].mapper.augmentations[0].update(short_edge_length=64, max_size=96)
train.update(device="cpu", log_period=1, fit_data=False)
