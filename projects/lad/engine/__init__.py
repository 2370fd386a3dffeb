"""Training: trainer, hooks, configuration and evaluation of a run."""

from lad.engine.config import build, load_config, user_errors
from lad.engine.evaluation import evaluate, evaluated_part
from lad.engine.hooks import BestCheckpointer, EMAHook, IterationSeed
from lad.engine.setup import (
    build_optimizer,
    check_classes,
    check_run,
    dataset_names,
    last_checkpoint,
    resolve_device,
    set_up,
)
from lad.engine.trainer import Trainer, gradient_clipper

__all__ = [
    "BestCheckpointer",
    "EMAHook",
    "IterationSeed",
    "Trainer",
    "build",
    "build_optimizer",
    "check_classes",
    "check_run",
    "dataset_names",
    "evaluate",
    "evaluated_part",
    "gradient_clipper",
    "last_checkpoint",
    "load_config",
    "resolve_device",
    "set_up",
    "user_errors",
]
