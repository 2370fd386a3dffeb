"""PAA on own data (--data FOLDER), from scratch."""

from ..common.data.quick import dataloader
from ..common.models.backbones import paa_timm_small
from ..common.optim import AdamW as optimizer
from ..common.schedule import cosine_schedule
from ..common.train import train

model = paa_timm_small("mobilenetv4_conv_small")
optimizer.update(lr=1e-3, weight_decay=0.01)
train.update(
    output_dir="output/quick/paa",
    epochs=30,
    fit_data=True,
    amp=dict(enabled="auto", dtype="bfloat16"),
    best=dict(metric="bbox/AP"),
    max_iter=1000,
    seed=0,
    clip_grad=dict(enabled=True, type="norm", max=10.0),
    eval_period=200,
    checkpointer=dict(period=200, max_to_keep=2),
)
lr_multiplier = cosine_schedule(max_iter=1000, warmup_iters=50)
