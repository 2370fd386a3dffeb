"""Training: trainer, hooks, configuration and evaluation of a run."""

from lad.engine.config import build, load_config, user_errors
from lad.engine.evaluation import evaluate
from lad.engine.hooks import BestCheckpointer, EMAHook, IterationSeed, ModelHook, TrainingStateHook
from lad.engine.setup import (
    build_optimizer,
    check_classes,
    check_run,
    class_keys,
    dataset_names,
    detectors,
    last_checkpoint,
    resolve_device,
    set_up,
)
from lad.engine.trainer import Trainer, gradient_clipper

__all__ = [
    "BestCheckpointer",
    "EMAHook",
    "IterationSeed",
    "ModelHook",
    "Trainer",
    "TrainingStateHook",
    "build",
    "build_optimizer",
    "check_classes",
    "check_run",
    "class_keys",
    "dataset_names",
    "detectors",
    "evaluate",
    "gradient_clipper",
    "last_checkpoint",
    "load_config",
    "resolve_device",
    "set_up",
    "user_errors",
]
