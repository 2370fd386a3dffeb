"""Training and evaluation of a config, for train_net.py and `start_training`."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import default_argument_parser, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from omegaconf import DictConfig
from torch import nn

from lad import compat
from lad.checkpoint import load_initial_weights, load_weights
from lad.data import write_coco_files
from lad.engine.config import build, load_config, user_errors
from lad.engine.data import data_folder, describe_data, load_config_with_data
from lad.engine.evaluation import evaluate
from lad.engine.hooks import (
    BestCheckpointer,
    EMAHook,
    IterationSeed,
    ModelHook,
    TrainingStateHook,
)
from lad.engine.schedule import ProgressHook
from lad.engine.setup import (
    amp_dtype,
    build_optimizer,
    check_classes,
    check_run,
    last_checkpoint,
    resolve_device,
    set_up,
)
from lad.engine.trainer import Trainer, gradient_clipper
from lad.modeling.network import model_info

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None, *, examples: str | None = None) -> None:
    """Reads the command line, checks the config and starts the processes.

    Args:
        argv: arguments, by default this process' own.
        examples: shown at the end of ``--help``.
    """
    parser = default_argument_parser(epilog=examples)
    parser.add_argument(
        "--data", metavar="FOLDER", help="labeled images for training and evaluation: docs/data.md"
    )
    args = parser.parse_args(argv)
    layout, notes = None, []
    with user_errors():
        if args.data:
            cfg, layout = load_config_with_data(args)
        else:
            cfg = load_config(args.config_file, args.opts)
        device = resolve_device(cfg.train.device)
        compat.check_processes(device, args.num_gpus, args.num_machines)
        check_run(cfg, resume=args.resume, eval_only=args.eval_only)
        if layout:
            folder = data_folder(cfg, args.eval_only)
            write_coco_files(layout, folder, replace=args.eval_only or not args.resume)
            notes = describe_data(cfg, layout)
    try:
        compat.launch(
            run,
            args=(args, cfg, notes),
            device=device,
            num_gpus=args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
        )
    except torch.multiprocessing.ProcessExitedException as error:
        sys.exit(error.exit_code)  # the process has printed the reason


def start_training(
    arguments: Sequence[str], log: str | Path, *, threads: int | None = None
) -> subprocess.Popen:
    """Starts train_net.py's work in another process, which as a context manager waits for its end.

    Args:
        arguments: of the command line.
        log: file for stdout and stderr.
        threads: of PyTorch, unless the environment sets OMP_NUM_THREADS.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    command = [sys.executable, "-m", "lad.engine.run", *arguments]
    with open(log, "w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)


def run(args: argparse.Namespace, cfg: DictConfig, notes: Sequence[str] = ()) -> None:
    """Trains or evaluates, in each process; ``notes`` are logged before."""
    with user_errors():
        set_up(cfg, args)
        for note in notes:
            logger.info(note)
        model = build(cfg, "model").to(resolve_device(cfg.train.device))
    (do_eval if args.eval_only else do_train)(cfg, model, resume=args.resume)


def do_eval(cfg: DictConfig, model: nn.Module, *, resume: bool) -> dict[str, Any]:
    """Evaluates a checkpoint and writes the results to ``inference/results.json``."""
    folder = cfg.train.output_dir
    with user_errors():
        last = last_checkpoint(folder) if resume else ""
        source = "--resume: checkpoint" if last else "train.init_checkpoint"
        evaluated = list(model_info(model).evaluated.values())
        load_weights(model, last or cfg.train.init_checkpoint, source=source, complete=evaluated)
        loader = build_test_loader(cfg, model)
    results = evaluate(model, loader, cfg.dataloader.evaluator)
    if comm.is_main_process():
        with open(os.path.join(folder, "inference", "results.json"), "w") as file:
            figures = flatten_results_dict(results)
            # JSON has no nan: undefined metrics, such as AP without detections, are null.
            json.dump(
                {k: v if math.isfinite(v) else None for k, v in figures.items()}, file, indent=2
            )
    return results


def do_train(cfg: DictConfig, model: nn.Module, *, resume: bool) -> None:
    """Trains from the initial weights, or from the last checkpoint with ``resume``."""
    with user_errors():
        resume_from = last_checkpoint(cfg.train.output_dir) if resume else ""
        load_initial_weights(model, cfg.train.init_checkpoint, resume_from=resume_from)
        trainer, checkpointer = build_trainer(cfg, model)
    start_iter = 0
    if resume_from:
        # The checkpoint holds the last finished iteration.
        checkpointer.resume_or_load("", resume=True)
        start_iter = trainer.iter + 1
    # After some calls TorchScript optimizes Detectron2's focal loss, which changes its rounding: on
    # a CPU a resumed run would not equal the whole run exactly.
    with torch.jit.optimized_execution(resolve_device(cfg.train.device) != "cpu"):
        trainer.train(start_iter, cfg.train.max_iter)


def build_test_loader(cfg: DictConfig, model: nn.Module) -> Any:
    """Builds the test loader and checks that an evaluation can work.

    Raises:
        ValueError: if it cannot, e.g. because data and model have different classes.
        OSError: if a file of the data is missing.
    """
    loader = build(cfg, "dataloader.test")
    build(cfg, "dataloader.evaluator")  # each evaluation builds its own
    check_classes(model, cfg, "test")
    return loader


def build_trainer(cfg: DictConfig, model: nn.Module) -> tuple[Trainer, DetectionCheckpointer]:
    """Builds the trainer with its hooks, and the checkpointer that saves and resumes it."""
    train = cfg.train
    further = further_hooks(cfg, model)
    ddp = dict(train.ddp)
    if any(isinstance(hook, ModelHook) and hook.unused_parameters for hook in further):
        ddp["find_unused_parameters"] = True
    ddp_model = compat.create_ddp_model(model, device=resolve_device(train.device), **ddp)
    clip = train.clip_grad
    trainer = Trainer(
        ddp_model,
        build(cfg, "dataloader.train"),
        build_optimizer(cfg.optimizer, model),
        accumulate=train.accumulate,
        amp_dtype=amp_dtype(train),
        clip_grad=gradient_clipper(clip.type, clip.max) if clip.enabled else None,
    )
    check_classes(model, cfg, "train")
    checkpointer = DetectionCheckpointer(model, train.output_dir, trainer=trainer)
    ema = EMAHook(model, train.ema.decay) if train.ema.enabled else None
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            IterationSeed(train.seed),
            hooks.LRScheduler(scheduler=build(cfg, "lr_multiplier")),
            ProgressHook(),
            TrainingStateHook(),
            ema,
            *further,
            *saving_hooks(cfg, checkpointer, model if ema is None else ema.model),
        ]
    )
    return trainer, checkpointer


def further_hooks(cfg: DictConfig, model: nn.Module) -> list[hooks.HookBase]:
    """Builds the hooks that the config adds.

    Raises:
        ValueError: if one is no hook or cannot work with the model.
    """
    built = []
    for index in range(len(cfg.train.hooks)):
        key = f"train.hooks.{index}"
        hook = build(cfg, key)
        if not isinstance(hook, hooks.HookBase):
            raise ValueError(f"{key}: {type(hook).__name__} is no hook of Detectron2; remove it")
        if isinstance(hook, ModelHook):
            hook.check(model)
        built.append(hook)
    return built


def saving_hooks(
    cfg: DictConfig, checkpointer: DetectionCheckpointer, evaluated: nn.Module
) -> list[hooks.HookBase | None]:
    """Returns the hooks that save, evaluate and write the log, in their order."""
    train = cfg.train
    main_process = comm.is_main_process()
    test = best = None
    if "evaluator" in cfg.dataloader:
        loader = build_test_loader(cfg, evaluated)
        test = hooks.EvalHook(
            train.eval_period, partial(evaluate, evaluated, loader, cfg.dataloader.evaluator)
        )
        if main_process and train.best.metric:
            best = BestCheckpointer(
                eval_period=train.eval_period,
                model=evaluated,
                output_dir=train.output_dir,
                metric=train.best.metric,
            )
    return [
        hooks.PeriodicCheckpointer(checkpointer, **train.checkpointer) if main_process else None,
        test,
        best,
        hooks.PeriodicWriter(writers(cfg), period=train.log_period) if main_process else None,
    ]


def writers(cfg: DictConfig) -> list[EventWriter]:
    """Returns Detectron2's writers."""
    # Smoothed over one log period: lines after a resume do not depend on iterations before it.
    folder, window = cfg.train.output_dir, cfg.train.log_period
    return [
        CommonMetricPrinter(cfg.train.max_iter, window_size=window),
        JSONWriter(os.path.join(folder, "metrics.json"), window_size=window),
        TensorboardXWriter(folder, window_size=window),
    ]


if __name__ == "__main__":
    main()
