"""Checks configs: each is loaded, overridden, saved as YAML, reloaded, instantiated and trained.

    python tools/check_configs.py ['configs/colad/*.py'] [--quick] [--max-params MILLIONS]
    python tools/check_configs.py configs/lad/r50_from_r101_1x.py --train 20

Neither data nor weights are needed: networks have random weights and take one forward and backward
step on two small random images; those above --max-params are only instantiated. --train trains on
digit scenes instead, prints the command line of train_net.py for it, and compares the losses of
the first and the last five iterations. A line each; exit status 1 when one fails.
"""

from __future__ import annotations

import argparse
import glob
import math
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import nn

from lad.checkpoint.load import RANDOM
from lad.engine.config import load_config
from lad.engine.run import start_training
from lad.engine.setup import build_optimizer, class_keys, detectors
from lad.metrics import read_metrics, series
from lad.modeling.network import model_info

ROOT = Path(__file__).resolve().parents[1]
IMAGE_SIZE = (96, 128)  # height, width of the step's random images
BOXES = [[8.0, 8.0, 40.0, 40.0], [30.0, 20.0, 110.0, 90.0]]


def find_configs(pattern: str) -> list[str]:
    """Returns the paths that match, without the parts that configs share, sorted."""
    return sorted(path for path in glob.glob(pattern) if Path(path).parent.name != "common")


def short_overrides(config: DictConfig, iterations: int) -> list[str]:
    """Returns overrides for some iterations of two images each without initial weights."""
    batch_size = 2
    learning_rate = config.optimizer.lr * batch_size / config.dataloader.train.total_batch_size
    overrides = [
        f"train.max_iter={iterations}",
        "train.init_checkpoint=",
        f"dataloader.train.total_batch_size={batch_size}",
        "dataloader.train.num_workers=0",
        f"optimizer.lr={learning_rate:g}",
        "lr_multiplier.warmup_length=0",
    ]
    checkpoints = {"student_checkpoint": "", "teacher_checkpoint": RANDOM}
    return overrides + [f"model.{k}={v}" for k, v in checkpoints.items() if k in config.model]


def scratch_overrides(config: DictConfig) -> list[str]:
    """Returns overrides for digit scenes and for ResNets without pre-trained weights.

    These need a norm without pre-trained statistics and nothing frozen; clipped gradients replace
    the warm-up.
    """
    overrides = [
        "dataloader.train.dataset.names=digits_train",
        "dataloader.train.mapper.augmentations=[]",
        "dataloader.test.dataset.names=digits_val",
        # The evaluation after the training is not used: tiny images make it short.
        "dataloader.test.mapper.augmentations="
        "[{_target_:detectron2.data.transforms.ResizeShortestEdge,short_edge_length:32}]",
        "dataloader.test.num_workers=0",
        "train.seed=0",
        "train.log_period=1",
        "train.clip_grad.enabled=true",
        "train.clip_grad.max=5",
    ]
    overrides += [f"{key}=10" for key in class_keys(config)]
    for key, detector in detectors(config):
        bottom_up = detector.backbone.bottom_up
        if "depth" in bottom_up and "norm" not in bottom_up:
            overrides.append(f"{key}.backbone.bottom_up.norm=GN")
            overrides.append(f"{key}.backbone.bottom_up.freeze_at=0")
    return overrides


def reload(config: DictConfig, folder: str) -> DictConfig:
    """Saves a config as YAML and loads that.

    Raises:
        ValueError: if the loaded config differs.
    """
    path, again = (os.path.join(folder, name) for name in ("config.yaml", "again.yaml"))
    LazyConfig.save(config, path)
    loaded = load_config(path, trusted=True)  # made of a Python config, which is code
    LazyConfig.save(loaded, again)
    if Path(path).read_text() != Path(again).read_text():
        raise ValueError("the config changes when it is saved and loaded")
    return loaded


def instantiate_parts(config: DictConfig) -> nn.Module:
    """Instantiates everything but the data, the networks on the meta device; returns the model."""
    with torch.device("meta"):
        model = instantiate(config.model)
        build_optimizer(config.optimizer, model)
    multiplier = instantiate(config.lr_multiplier)
    if not all(0 <= multiplier(where) <= 1 for where in (0.0, 0.5, 0.999)):
        raise ValueError("lr_multiplier leaves the range 0 to 1")
    for node in (
        *config.train.hooks,
        config.dataloader.train.mapper,
        config.dataloader.test.mapper,
    ):
        instantiate(node)
    return model


def training_step(model: nn.Module) -> float:
    """Runs a model forward and backward on two random images.

    Args:
        model: gets objects of class 0 only if its number of classes is unknown.

    Returns:
        The sum of its losses.

    Raises:
        ValueError: if a loss or gradient is not finite, or there is no gradient.
    """
    generator = torch.Generator().manual_seed(0)
    num_classes = model_info(model).num_classes or 1
    batch = []
    for _ in range(2):
        instances = Instances(IMAGE_SIZE)
        instances.gt_boxes = Boxes(torch.tensor(BOXES))
        instances.gt_classes = torch.arange(len(BOXES)) % num_classes
        masks = torch.zeros(len(BOXES), *IMAGE_SIZE, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, BOXES, strict=True):
            mask[int(top) : int(bottom), int(left) : int(right)] = True
        instances.gt_masks = BitMasks(masks)
        image = torch.randint(0, 256, (3, *IMAGE_SIZE), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances})
    with EventStorage():  # Detectron2's detectors log into one
        losses = model.train()(batch)
    if bad := [name for name, loss in losses.items() if not loss.isfinite()]:
        raise ValueError(f"{', '.join(bad)} not finite")
    total = sum(losses.values())
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not gradients or not all(gradient.isfinite().all() for gradient in gradients):
        raise ValueError("gradients are missing or not finite")
    return total.item()


def train(path: str, config: DictConfig, iterations: int, folder: str) -> str:
    """Trains a config on digit scenes, in another process.

    Returns:
        The mean of total_loss over the first and the last five iterations (of fewer than ten, over
        each half), in words.

    Raises:
        ValueError: if the training fails or its loss does not fall.
    """
    overrides = short_overrides(config, iterations) + scratch_overrides(config)
    arguments = ["--config-file", path, f"train.output_dir={folder}", *overrides]
    print(shlex.join(["python", "train_net.py", *arguments]), flush=True)
    log = Path(f"{folder}.log")
    with start_training(arguments, log) as process:
        status = process.wait()
    if status:
        raise ValueError((log.read_text().strip().splitlines() or ["the training failed"])[-1])
    losses = series(read_metrics(Path(folder) / "metrics.json"), "total_loss")[1]
    few = max(1, min(5, len(losses) // 2))
    first, last = (sum(part) / few for part in (losses[:few], losses[-few:]))
    if not (math.isfinite(last) and last < first):
        raise ValueError(f"loss {first:.3f} to {last:.3f}: it does not fall")
    return f"loss {first:.3f} to {last:.3f}"


def check(path: str, *, quick: bool, max_params: float, iterations: int) -> str:
    """Checks a config.

    Args:
        path: of the config.
        quick: stop after the instantiation.
        max_params: millions of parameters up to which a step is run.
        iterations: of a training on digit scenes instead of the step; 0 for the step.

    Returns:
        What was done, in words.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = load_config(path)
        config = reload(load_config(path, short_overrides(plain, iterations or 1)), folder)
        params = sum(p.numel() for p in instantiate_parts(config).parameters()) / 1e6
        done = f"{params:.1f} M parameters"
        if quick:
            return done
        start = time.perf_counter()
        if iterations:
            done += f", {train(path, plain, iterations, os.path.join(folder, 'run'))}"
        elif params <= max_params:
            torch.manual_seed(0)
            done += f", loss {training_step(instantiate(config.model)):.3f}"
        else:
            return f"{done}, too large for a step"
        return f"{done}, {time.perf_counter() - start:.1f} s"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the checks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("glob", nargs="?", default=str(ROOT / "configs/*/*.py"), metavar="GLOB")
    parser.add_argument("--quick", action="store_true", help="instantiate, no training step")
    parser.add_argument(
        "--max-params", type=float, default=200, metavar="MILLIONS", help="of a step (default 200)"
    )
    parser.add_argument("--train", type=int, default=0, metavar="N", help="N iterations on digits")
    args = parser.parse_args(argv)
    paths = find_configs(args.glob)
    if not paths:
        parser.error(f"{args.glob} matches no config")
    failed = 0
    for path in paths:
        name = os.path.relpath(path, ROOT)
        try:
            done = check(path, quick=args.quick, max_params=args.max_params, iterations=args.train)
            print(f"{name}: ok, {done}", flush=True)
        except Exception as error:  # whatever a config can raise is what is reported
            failed += 1
            reason = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
            print(f"{name}: FAILED, {reason}", flush=True)
    print(f"configs: {len(paths) - failed} ok, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
