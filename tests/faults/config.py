"""Faults of configs and command lines."""

from __future__ import annotations

import logging
from pathlib import Path

from detectron2.utils.logger import setup_logger

from faults.case import Case, Outcome, call, refused
from lad.engine.run import main

TOY = Path(__file__).parents[1] / "engine/toy_config.py"


def override(value: str, *words: str, folder: Path) -> Outcome:
    """Starts the toy training with an override that is wrong."""
    output = folder / "run"
    arguments = ["--config-file", TOY, f"train.output_dir={output}", value]
    try:
        outcome = refused(call(main, arguments), *words)
    finally:
        for name in ("detectron2", "fvcore", "lad"):  # their handlers write to a closed stream
            logging.getLogger(name).handlers.clear()
        setup_logger.cache_clear()
    assert not output.exists(), "a refused start has left a folder"
    return outcome


def overrides() -> list[Case]:
    """Overrides that name no key, or give a key a value that it cannot have."""
    wrong = {
        "train.max_itre=3": ("max_itre",),
        "train.max_iter=many": ("max_iter",),
        "train.max_iter": ("train.max_iter",),
        "train.max_iter=0": ("train.max_iter=0",),
        "train.max_iter=-5": ("train.max_iter=-5",),
        "train.max_iter=1.5": ("train.max_iter=1.5",),
        "train.max_iter=true": ("train.max_iter",),
        "train.max_iter=null": ("train.max_iter",),
        "train.max_iter=[1]": ("train.max_iter",),
        "train.max_iter=nan": ("train.max_iter",),
        "train.max_iter=1e400": ("train.max_iter",),
        "train.max_iter=${nothing}": ("nothing",),
        "train.accumulate=0": ("train.accumulate=0",),
        "train.accumulate=true": ("train.accumulate",),
        "train.log_period=0": ("train.log_period=0",),
        "train.eval_period=-1": ("train.eval_period=-1",),
        "train.seed=1.5": ("train.seed=1.5",),
        "train.checkpointer.period=0": ("train.checkpointer.period=0",),
        "train.checkpointer.max_to_keep=0": ("max_to_keep",),
        "train.checkpointer.perod=3": ("perod",),
        "train.checkpointer=3": ("train.checkpointer",),
        "train.device=gpu": ("train.device", "gpu"),
        "train.amp.enabled=maybe": ("train.amp.enabled",),
        "train.ema.enabled=maybe": ("train.ema.enabled",),
        "train.clip_grad=both": ("train.clip_grad",),
        "train.writers=x": ("train.writers",),
        "train.output_dir=null": ("train.output_dir",),
        "train.init_checkpoint=none.pth": ("train.init_checkpoint", "none.pth"),
        "train.hooks=[1]": ("train.hooks",),
        "train.hooks=3": ("train.hooks",),
        "train=3": ("train",),
        "optimizer.lr=fast": ("optimizer.lr",),
        "optimizer.lr=-1": ("-1",),
        "optimizer.lr=nan": ("lr",),
        "optimizer.lr=inf": ("lr",),
        "optimizer.lr=null": ("optimizer",),
        "optimizer.lrs=1": ("optimizer.lrs",),
        "model=null": ("model",),
        "model.channels=-4": ("model",),
        "model.channels=many": ("model.channels",),
        "model.dropout=2": ("dropout",),
        "dataloader.train.total_batch_size=0": ("total_batch_size=0",),
        "dataloader.train.total_batch_size=-4": ("total_batch_size=-4",),
        "dataloader.train.total_batch_size=2.5": ("total_batch_size=2.5",),
        "dataloader.trian.seed=1": ("dataloader.trian.seed",),
        "lr_multiplier._target_=nowhere.Nothing": ("nowhere.Nothing",),
        "train.a.b.c=1": ("train.a.b.c",),
        "~train.seed": ("~train.seed",),
        "train.seed=1,2": ("a list",),
        "=3": ("=3",),
        "train.seed='": ("train.seed",),
    }
    return [
        Case("config", f"override {value}", lambda f, v=value, w=words: override(v, *w, folder=f))
        for value, words in wrong.items()
    ]


def missing_config(folder: Path) -> Outcome:
    """Names a config file that does not exist."""
    return refused(call(main, ["--config-file", folder / "none.py"]), "none.py")


CASES = [*overrides(), Case("config", "config file does not exist", missing_config)]
