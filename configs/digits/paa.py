"""PAA on digit scenes, from scratch: minutes on a CPU."""

from ..common.data.digits import dataloader
from ..common.models.paa import paa_small
from ..common.optim import AdamW as optimizer
from ..common.schedule import cosine_schedule
from ..common.train import train

model = paa_small()
optimizer.update(lr=2e-3, weight_decay=1e-4)
train.update(
    output_dir="output/digits/paa",
    max_iter=500,
    seed=0,
    eval_period=250,
    checkpointer=dict(period=100, max_to_keep=2),
)
lr_multiplier = cosine_schedule(max_iter=500, warmup_iters=30)
