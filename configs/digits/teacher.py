"""The digit scenes' teacher: a wider PAA, trained longer than its students."""

from ..common.models.paa import paa_small
from ..common.schedule import cosine_schedule
from .paa import dataloader, optimizer, train

model = paa_small(width=48)
train.update(output_dir="output/digits/teacher", max_iter=700)
lr_multiplier = cosine_schedule(max_iter=700, warmup_iters=30)
