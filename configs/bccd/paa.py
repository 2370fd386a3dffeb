"""PAA on blood cell photographs at 320x240, from scratch."""

from ..common.data.bccd import dataloader
from ..common.models.paa import paa_small
from ..common.optim import AdamW as optimizer
from ..common.schedule import cosine_schedule
from ..common.train import train

model = paa_small(num_classes=3)
optimizer.update(lr=2e-3, weight_decay=1e-4)
lr_multiplier = cosine_schedule(max_iter=300, warmup_iters=30)
train.update(output_dir="output/bccd/paa", max_iter=300, seed=0, eval_period=300)
