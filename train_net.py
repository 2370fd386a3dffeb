"""Trains or evaluates a detector: the one entry for every config.

Examples:
    python train_net.py --config-file configs/digits/paa.py train.max_iter=100
    python train_net.py --config-file configs/paa/r50_1x.py --num-gpus 8 train.amp.enabled=True
    torchrun --nproc_per_node 2 train_net.py --config-file configs/digits/paa.py
    python train_net.py --config-file configs/digits/paa.py --eval-only \
        train.init_checkpoint=output/digits/paa/model_final.pth
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import default_argument_parser, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from omegaconf import DictConfig
from torch import nn

import lad.data  # noqa: F401  registers the datasets
from lad import compat
from lad.checkpoint import load_initial_weights, load_weights
from lad.engine import (
    BestCheckpointer,
    EMAHook,
    IterationSeed,
    Trainer,
    build,
    build_optimizer,
    check_classes,
    check_run,
    dataset_names,
    evaluate,
    evaluated_part,
    gradient_clipper,
    last_checkpoint,
    load_config,
    resolve_device,
    set_up,
    user_errors,
)


def do_eval(cfg: DictConfig, model: nn.Module, *, resume: bool) -> dict[str, Any]:
    """Evaluates a checkpoint and writes the figures to ``inference/results.json``."""
    folder = cfg.train.output_dir
    with user_errors():
        path = (resume and last_checkpoint(folder)) or cfg.train.init_checkpoint
        load_weights(model, path, complete=evaluated_part(model))
        loader = build_test_loader(cfg, model)
    results = evaluate(model, loader, cfg.dataloader.evaluator)
    if comm.is_main_process():
        with open(os.path.join(folder, "inference", "results.json"), "w") as file:
            figures = flatten_results_dict(results)
            # JSON knows no nan: what cannot be told, such as AP without detections, is null.
            json.dump(
                {k: v if math.isfinite(v) else None for k, v in figures.items()}, file, indent=2
            )
    return results


def build_test_loader(cfg: DictConfig, model: nn.Module) -> Any:
    """Builds the test loader; what an evaluation cannot do without is missed before any work."""
    loader = build(cfg, "dataloader.test")
    build(cfg, "dataloader.evaluator")  # each evaluation builds its own
    check_classes(model, dataset_names(cfg, "test"))
    return loader


def do_train(cfg: DictConfig, model: nn.Module, *, resume: bool) -> None:
    """Trains from the initial weights, or from the last checkpoint with ``resume``."""
    with user_errors():
        resume_from = last_checkpoint(cfg.train.output_dir) if resume else ""
        load_initial_weights(model, cfg.train.init_checkpoint, resume_from=resume_from)
        trainer, checkpointer = build_trainer(cfg, model)
    start_iter = 0
    if resume_from:
        # The checkpoint holds the last iteration that was done.
        checkpointer.resume_or_load("", resume=True)
        start_iter = trainer.iter + 1
    trainer.train(start_iter, cfg.train.max_iter)


def build_trainer(cfg: DictConfig, model: nn.Module) -> tuple[Trainer, DetectionCheckpointer]:
    """Builds the trainer with its hooks, and what saves and resumes it."""
    train = cfg.train
    ddp_model = compat.create_ddp_model(model, device=resolve_device(train.device), **train.ddp)
    trainer = Trainer(
        ddp_model,
        build(cfg, "dataloader.train"),
        build_optimizer(cfg.optimizer, model),
        accumulate=train.accumulate,
        amp_dtype=train.amp.dtype if train.amp.enabled else None,
        clip_grad=(
            gradient_clipper(train.clip_grad.type, train.clip_grad.max)
            if train.clip_grad.enabled
            else None
        ),
    )
    check_classes(model, dataset_names(cfg, "train"))
    further_hooks = [build(cfg, f"train.hooks.{i}") for i in range(len(train.hooks))]
    for hook in further_hooks:
        if not isinstance(hook, hooks.HookBase):
            raise ValueError(f"train.hooks={train.hooks}: {hook} is no hook")
        if hasattr(hook, "check"):
            hook.check(model)
    checkpointer = DetectionCheckpointer(model, train.output_dir, trainer=trainer)
    ema = EMAHook(model, train.ema.decay) if train.ema.enabled else None
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            IterationSeed(train.seed),
            hooks.LRScheduler(scheduler=build(cfg, "lr_multiplier")),
            ema,
            *further_hooks,
            *saving_hooks(cfg, checkpointer, model if ema is None else ema.model),
        ]
    )
    return trainer, checkpointer


def saving_hooks(
    cfg: DictConfig, checkpointer: DetectionCheckpointer, evaluated: nn.Module
) -> list[hooks.HookBase | None]:
    """Returns the hooks that save, evaluate and write the log, in their order."""
    train = cfg.train
    main = comm.is_main_process()
    test = None
    if "evaluator" in cfg.dataloader:
        loader = build_test_loader(cfg, evaluated)
        test = hooks.EvalHook(
            train.eval_period, partial(evaluate, evaluated, loader, cfg.dataloader.evaluator)
        )
    best = None
    if main and test is not None and train.best.metric:
        best = BestCheckpointer(
            eval_period=train.eval_period,
            model=evaluated,
            output_dir=train.output_dir,
            metric=train.best.metric,
        )
    return [
        hooks.PeriodicCheckpointer(checkpointer, **train.checkpointer) if main else None,
        test,
        best,
        hooks.PeriodicWriter(writers(cfg), period=train.log_period) if main else None,
    ]


def writers(cfg: DictConfig) -> list[EventWriter]:
    """Returns Detectron2's writers, smoothing over what happened since the line before.

    A longer window would make the lines after a resume depend on iterations before it.
    """
    folder, window = cfg.train.output_dir, cfg.train.log_period
    return [
        CommonMetricPrinter(cfg.train.max_iter, window_size=window),
        JSONWriter(os.path.join(folder, "metrics.json"), window_size=window),
        TensorboardXWriter(folder, window_size=window),
    ]


def run(args: argparse.Namespace, cfg: DictConfig) -> None:
    """Trains or evaluates, in each process."""
    with user_errors():
        set_up(cfg, args)
        model = build(cfg, "model").to(resolve_device(cfg.train.device))
    (do_eval if args.eval_only else do_train)(cfg, model, resume=args.resume)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the command line, checks the config and starts the processes."""
    args = default_argument_parser(epilog=__doc__).parse_args(argv)
    with user_errors():
        cfg = load_config(args.config_file, args.opts)
        device = resolve_device(cfg.train.device)
        compat.check_processes(device, args.num_gpus, args.num_machines)
        check_run(cfg, resume=args.resume, eval_only=args.eval_only)
    try:
        compat.launch(
            run,
            args=(args, cfg),
            device=device,
            num_gpus=args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
        )
    except torch.multiprocessing.ProcessExitedException as error:
        sys.exit(error.exit_code)  # the process has said why


if __name__ == "__main__":
    main()
