"""CoLAD of two tiny detectors on a few digit scenes: seconds, through the real loader."""

import os
from pathlib import Path

from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog

from lad.data import DigitScenesSpec, register_digit_scenes
from toy_training import KillItself

from ...configs.common.data.digits import dataloader
from ...configs.common.models.distillation import ROLE_SWITCH_HOOK, colad, stdmean_switch
from ...configs.common.models.paa import paa_small
from ...configs.common.optim import AdamW as optimizer
from ...configs.common.schedule import cosine_schedule
from ...configs.common.train import train

if "tiny_digits_train" not in DatasetCatalog.list():
    register_digit_scenes(
        "tiny_digits",
        Path(os.environ["DETECTRON2_DATASETS"]) / "tiny_digits",
        DigitScenesSpec(image_size=96, num_train=12, num_val=4),
    )
dataloader.train.dataset.names = "tiny_digits_train"
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 0
dataloader.test.dataset.names = "tiny_digits_val"
dataloader.test.num_workers = 0

model = colad(paa_small(width=8, channels=32), paa_small(width=16, channels=32), stdmean_switch())
train.update(max_iter=8, seed=0, device="cpu", log_period=1, eval_period=0, kill_at=-1)
train.hooks = [ROLE_SWITCH_HOOK, L(KillItself)(iteration="${train.kill_at}")]
train["checkpointer"]["period"] = 3
lr_multiplier = cosine_schedule(max_iter=8, warmup_iters=2)
optimizer.lr = 2e-3
