"""Checks and setup before a run."""

from __future__ import annotations

import argparse
import copy
import logging
import math
import os
from collections.abc import Sequence
from glob import escape, glob
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lad.checkpoint.folder import Found, find_training
from lad.data.names import read_class_names
from lad.engine.config import build_node
from lad.engine.config_file import config_differences
from lad.engine.console import log_environment, start_log
from lad.files import written_aside
from lad.modeling.distillation import NETWORKS
from lad.modeling.network import model_info

logger = logging.getLogger(__name__)

# A config may lack them or set them to null.
OPTIONAL_NUMBERS = (
    *("epochs", "seed", "vis_period"),
    *("checkpointer.max_to_keep", "early_stop.patience", "skip_nonfinite"),
)


def resolve_device(
    name: str, *, key: str = "train.device", known: Sequence[str] = ("cpu", "cuda")
) -> str:
    """Returns the device for a name, of which "auto" is "cuda", or "cpu" without a GPU.

    Args:
        name: "auto" or one of ``known``.
        key: name of the setting in messages.
        known: of "cpu", "cuda" and "mps".

    Raises:
        ValueError: for another name, or a GPU that this machine does not have.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in known:
        choices = ", ".join(repr(x) for x in ("auto", *known[:-1]))
        raise ValueError(f"{key}={name!r}: choose {choices} or {known[-1]!r}")
    backends = {"cuda": torch.cuda, "mps": torch.backends.mps}
    if name in backends and not backends[name].is_available():
        raise ValueError(f"{key}={name}: PyTorch finds no GPU; choose 'auto' or 'cpu'")
    return name


def amp_dtype(train: DictConfig) -> str | None:
    """Returns the dtype of mixed precision, None for full precision.

    ``train.amp.enabled="auto"`` means: on a GPU that computes in that dtype.

    Raises:
        ValueError: for another value than that, true and false.
    """
    enabled, dtype = train.amp.enabled, train.amp.dtype
    if enabled not in (True, False, "auto"):
        raise ValueError(f"train.amp.enabled={enabled}: choose true, false or auto")
    if enabled == "auto":
        gpu = resolve_device(train.device) == "cuda"
        enabled = gpu and (dtype != "bfloat16" or torch.cuda.is_bf16_supported())
    return dtype if enabled else None


def checkpoint_period(train: DictConfig) -> int:
    """Returns the iterations between checkpoints, of which "auto" is a tenth of the training."""
    period = train.checkpointer.period
    return max(1, -(-train.max_iter // 10)) if period == "auto" else period


def check_run(config: DictConfig, *, resume: bool, eval_only: bool) -> Found:
    """Checks numbers, files and folders of a run.

    Args:
        config: the whole config.
        resume: continue from the last checkpoint in the output folder, if there is one.
        eval_only: evaluate, do not train.

    Returns:
        The checkpoint to resume from; with ``resume`` only.

    Raises:
        ValueError: if a number is out of range, the output folder cannot be written to or holds
            another run, or there is nothing to evaluate.
        FileNotFoundError: if a checkpoint does not exist.
    """
    _check_numbers(config.train)
    for key in ("hooks", "writers"):
        if not OmegaConf.is_list(config.train.get(key, OmegaConf.create([]))):
            raise ValueError(f"train.{key}={config.train[key]}: write a list, [] for none")
    if OmegaConf.select(config, "dataloader.test.dataset.part") is not None:
        raise ValueError("dataloader.test.dataset.part: the evaluator counts all images; remove it")
    folder, initial = config.train.output_dir, config.train.init_checkpoint
    check_output(folder)
    found = find_training(folder) if resume else Found()
    last = found.path
    if initial and not last and not os.path.isfile(initial):
        raise FileNotFoundError(f"train.init_checkpoint={initial}: there is no such file")
    if eval_only and "evaluator" not in config.dataloader:
        raise ValueError("--eval-only: the config has no dataloader.evaluator; add one to it")
    if eval_only and not initial and not last:
        raise ValueError(
            "--eval-only has nothing to evaluate: add train.init_checkpoint=FILE, or --resume for "
            f"the last checkpoint in {folder}"
        )
    if not resume and not eval_only and glob(os.path.join(escape(folder), "*.pth")):
        raise ValueError(
            f"train.output_dir={folder} holds checkpoints of another run: continue it with "
            "--resume or choose another train.output_dir"
        )
    if eval_only and not last:
        _check_not_of_another_run(folder, initial)
    _check_early_stop(config)
    return found


def _check_not_of_another_run(folder: str, checkpoint: str) -> None:
    """Raises ValueError if an evaluation would replace that of another training."""
    own = os.path.abspath(os.path.dirname(checkpoint)) == os.path.abspath(folder)
    if not own and glob(os.path.join(escape(folder), "*.pth")):
        raise ValueError(
            f"--eval-only: train.output_dir={folder} holds another run than {checkpoint}, whose "
            "inference/ would be overwritten: choose another train.output_dir"
        )


def _check_early_stop(config: DictConfig) -> None:
    train = config.train
    patience = OmegaConf.select(train, "early_stop.patience")
    if patience and not (
        train.best.metric and train.eval_period and "evaluator" in config.dataloader
    ):
        raise ValueError(
            f"train.early_stop.patience={patience} needs evaluations to compare: set "
            "train.best.metric, e.g. bbox/AP, train.eval_period and dataloader.evaluator"
        )


def _check_numbers(train: DictConfig) -> None:
    for key, lowest in (
        ("max_iter", 1),
        ("epochs", 1),
        ("accumulate", 1),
        ("log_period", 1),
        ("eval_period", 0),
        ("vis_period", 0),
        ("checkpointer.period", 1),
        ("early_stop.patience", 1),
        ("skip_nonfinite", 0),
        ("checkpointer.max_to_keep", 1),
        ("seed", None),
    ):
        value = OmegaConf.select(train, key)
        if value is None and key in OPTIONAL_NUMBERS:
            continue
        if value == "auto" and key == "checkpointer.period":
            continue
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or (lowest is not None and value < lowest):
            limit = "" if lowest is None else f" of at least {lowest}"
            raise ValueError(f"train.{key}={value}: expected a whole number{limit}")


def dataset_names(config: DictConfig, split: str) -> list[str]:
    """Returns the names of the datasets of ``dataloader.train`` or ``dataloader.test``."""
    names = OmegaConf.select(config, f"dataloader.{split}.dataset.names")
    return [names] if isinstance(names, str) else list(names or ())


def use_own_data(config: DictConfig, file: Path) -> None:
    """Makes the datasets of a training with ``--data`` the files in its output folder.

    Its config.yaml names them relative to where it was started, where others may be by now.
    """
    for split in ("train", "test"):
        for index, name in enumerate(names := dataset_names(config, split)):
            own = file.parent / "data" / Path(name).name
            if file.name == "config.yaml" and Path(name).parent.name == "data" and own.is_file():
                names[index] = str(own)
                OmegaConf.update(config, f"dataloader.{split}.dataset.names", names)


def detectors(config: DictConfig) -> list[tuple[str, DictConfig]]:
    """Returns (key, node) of each detector of a config: of the model, or of its networks."""
    if "student" not in config.model:
        return [("model", config.model)]
    networks = [(f"model.{name}", config.model.get(name)) for name in NETWORKS]
    return [(key, node) for key, node in networks if node is not None]


def class_key(detector: DictConfig) -> str:
    """Returns the key of a detector's number of classes: its own, its head's or its ROI heads'."""
    part = "" if "num_classes" in detector else "roi_heads." if "roi_heads" in detector else "head."
    return f"{part}num_classes"


def class_keys(config: DictConfig) -> list[str]:
    """Returns the keys of all detectors' numbers of classes."""
    return [f"{key}.{class_key(node)}" for key, node in detectors(config)]


def check_classes(model: nn.Module, config: DictConfig, split: str) -> None:
    """Raises ValueError if the loaded datasets and the model have different numbers of classes.

    Args:
        model: built from the config; not checked if its `ModelInfo.num_classes` is None.
        config: the whole config.
        split: "train" or "test".
    """
    number = model_info(model).num_classes
    for name in dataset_names(config, split):
        classes = MetadataCatalog.get(name).get("thing_classes")
        if number is not None and classes is not None and len(classes) != number:
            raise ValueError(
                f"dataset {name!r} has {len(classes)} classes, the model {number}: set "
                f"{' and '.join(class_keys(config))} to {len(classes)}"
            )


def check_class_names(config: DictConfig) -> None:
    """Raises ValueError unless the classes of training and test data have the same names and order.

    Training data that are not on this machine are not compared.
    """
    for train in dataset_names(config, "train"):
        expected = _class_names(train)
        for test in dataset_names(config, "test"):
            names = _class_names(test)
            if not expected or not names or names == expected:
                continue
            pairs = zip_longest(names, expected, fillvalue="none")
            number, (name, trained) = next((i, x) for i, x in enumerate(pairs) if x[0] != x[1])
            raise ValueError(
                f"dataset {test!r} has other classes than the training dataset {train!r}: its "
                f"class {number} is {name!r}, the training's {trained!r}: give both files the same "
                "categories with the same ids"
            )


def _class_names(dataset: str) -> list[str]:
    """Returns a dataset's classes, as loaded or in its file; none if there is no such file."""
    metadata = MetadataCatalog.get(dataset)
    classes = metadata.get("thing_classes")
    file = metadata.get("json_file") or dataset
    if classes is None and file.endswith(".json") and os.path.isfile(file):
        classes = read_class_names(file, "dataloader.train.dataset.names")
    return list(classes or ())


def check_unlabeled(model: nn.Module, config: DictConfig) -> None:
    """Raises ValueError if a training has images without labels, but nothing learns from them."""
    node = OmegaConf.select(config, "dataloader.train.unlabeled")
    some = node and node.get("names") and node.get("ratio", 1.0)
    if some and not model_info(model).takes_unlabeled:
        raise ValueError(
            "--unlabeled: none of the model's losses takes images without labels; use a config "
            "with soft labels, such as configs/quick/solad.py"
        )


def last_checkpoint(folder: str) -> str:
    """Returns the path of the checkpoint to resume from, "" where there is none."""
    try:
        with open(os.path.join(folder, "last_checkpoint")) as file:
            return os.path.join(folder, file.read().strip())
    except FileNotFoundError:
        return ""


def check_output(folder: Any) -> None:
    """Checks an output folder, or the one that it would be made in, without making it.

    Raises:
        ValueError: if it cannot be written to.
    """
    if not isinstance(folder, str) or not folder:
        raise ValueError(f"train.output_dir={folder}: name a folder")
    existing = os.path.abspath(folder)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise ValueError(f"train.output_dir={folder}: {existing} is no folder; choose another")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"train.output_dir={folder}: cannot be written to; choose another folder")


def set_up(config: DictConfig, args: argparse.Namespace) -> None:
    """Fixes the seed, starts the log, saves the config and seeds the random generators.

    A seed of None or below 0 becomes a random one, the same in all processes, also in ``config``.
    An evaluation has its own log and config in ``inference/``. ``args`` go to the log. A config
    that differs from that of the run so far is warned about.
    """
    train = config.train
    if train.seed is None or train.seed < 0:
        train.seed = comm.shared_random_seed()
    folder = os.path.join(train.output_dir, *["inference"] * args.eval_only)
    start_log(folder)
    log_environment(args)
    if comm.is_main_process():
        saved = copy.deepcopy(config)
        saved.train.output_dir = folder
        path = os.path.join(folder, "config.yaml")
        old = Path(path).read_text(errors="replace") if os.path.isfile(path) else ""
        with written_aside(path) as part:
            LazyConfig.save(saved, part)
        new = Path(path).read_text()
        logger.debug(f"Config:\n{new}")
        if old and getattr(args, "resume", False) and (line := config_differences(old, new)):
            logger.warning(f"--resume: {line}")
    seed_all_rng(train.seed + comm.get_rank())
    if not args.eval_only:
        torch.backends.cudnn.benchmark = train.get("cudnn_benchmark", False)


def build_optimizer(config: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Builds the optimizer of a model from its config node, whose ``params.model`` is set here.

    Raises:
        ValueError: if a value in the node cannot work.
    """
    rate = config.get("lr", 0.0)
    if not isinstance(rate, int | float) or not math.isfinite(rate):
        raise ValueError(f"optimizer.lr={rate}: it has to be a finite number")
    config.params.model = model
    optimizer = build_node(config, "optimizer")
    # Checkpoints that hold a config's lists do not load.
    for group in optimizer.param_groups:
        for name, value in group.items():
            if OmegaConf.is_config(value):
                group[name] = tuple(value)
    return optimizer
