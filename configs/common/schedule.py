"""Learning-rate schedules: linear warm-up from 1/1000, then x 0.1 at each drop."""

from collections.abc import Sequence

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler
from omegaconf import DictConfig

IMAGES = 117_266  # of COCO's train2017 that have annotations
BATCH = 16
EPOCH = -(-IMAGES // BATCH)  # iterations

MAX_ITER_1X = 12 * EPOCH
MAX_ITER_2X = 24 * EPOCH
MAX_ITER_3X = 36 * EPOCH


def step_schedule(*, max_iter: int, drops: Sequence[int], warmup_iters: int = 500) -> DictConfig:
    """Returns an ``lr_multiplier`` that drops after each of ``drops`` iterations."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**n for n in range(len(drops) + 1)],
            milestones=list(drops),
            num_updates=max_iter,
        ),
        warmup_length=warmup_iters / max_iter,
        warmup_factor=0.001,
        warmup_method="linear",
    )


def cosine_schedule(*, max_iter, warmup_iters):
    """Returns an ``lr_multiplier`` that falls to 0 along a cosine: for short trainings."""
    return L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
        warmup_length=warmup_iters / max_iter,
        warmup_factor=0.001,
        warmup_method="linear",
    )


def schedule_1x(warmup_iters: int = 500) -> DictConfig:
    """12 epochs, drops after 8 and 11."""
    drops = (8 * EPOCH, 11 * EPOCH)
    return step_schedule(max_iter=MAX_ITER_1X, drops=drops, warmup_iters=warmup_iters)


def schedule_2x(warmup_iters: int = 500) -> DictConfig:
    """24 epochs, drops after 16 and 22."""
    drops = (16 * EPOCH, 22 * EPOCH)
    return step_schedule(max_iter=MAX_ITER_2X, drops=drops, warmup_iters=warmup_iters)


def schedule_3x(warmup_iters: int = 500) -> DictConfig:
    """36 epochs, drops after 28 and 34."""
    drops = (28 * EPOCH, 34 * EPOCH)
    return step_schedule(max_iter=MAX_ITER_3X, drops=drops, warmup_iters=warmup_iters)
