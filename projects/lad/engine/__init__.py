"""Training: trainer, hooks, configuration and evaluation of a run."""

from lad.engine.config import load_config, user_errors
from lad.engine.evaluation import evaluate
from lad.engine.hooks import BestCheckpointer, EMAHook, IterationSeed
from lad.engine.setup import build_optimizer, check_run, last_checkpoint, resolve_device, set_up
from lad.engine.trainer import Trainer, gradient_clipper

__all__ = [
    "BestCheckpointer",
    "EMAHook",
    "IterationSeed",
    "Trainer",
    "build_optimizer",
    "check_run",
    "evaluate",
    "gradient_clipper",
    "last_checkpoint",
    "load_config",
    "resolve_device",
    "set_up",
    "user_errors",
]
