"""Training and evaluation of a config, for train_net.py and `start_training`."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from lad import compat
from lad.checkpoint import load_initial_weights, load_weights
from lad.checkpoint.folder import Found
from lad.data import write_coco_files
from lad.data.images import UnreadableImage
from lad.engine.build import build_test_loader, build_trainer
from lad.engine.command_line import parse_arguments
from lad.engine.config import build, load_config, user_errors
from lad.engine.data import data_folder, describe_data, load_config_with_data
from lad.engine.evaluation import evaluate_and_write
from lad.engine.folder import locked, unchanged_if_refused
from lad.engine.nonfinite import read_step
from lad.engine.replay import replay
from lad.engine.report import (
    blow_up,
    collect_results,
    describe_run,
    describe_training,
    figures_table,
    split_figures,
    write_results,
)
from lad.engine.resume import resume
from lad.engine.setup import check_output, check_run, resolve_device, set_up
from lad.engine.signals import StopSignals, passed_on, stoppable
from lad.engine.teacher import name_classes
from lad.engine.trainer import told_in_one_line
from lad.metrics import cut_metrics, read_metrics
from lad.modeling.distillation import NETWORKS
from lad.modeling.network import model_info

logger = logging.getLogger("lad.engine.run")  # also as __main__
NOTHING_FOUND = Found()


def main(argv: Sequence[str] | None = None, *, examples: str | None = None) -> None:
    """Reads the command line, checks the config and starts the processes.

    Args:
        argv: arguments, by default this process' own.
        examples: shown at the end of ``--help``.
    """
    args = parse_arguments(argv, examples=examples)
    with stoppable(), ExitStack() as stack:
        if args.dry_run or args.replay:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            args.opts.append(f"train.output_dir='{folder}'")
        layout, notes = None, []
        with user_errors():
            if args.data or args.unlabeled:
                cfg, layout = load_config_with_data(args)
            else:
                cfg = load_config(args.config_file, args.opts, trusted=args.trust)
            if not args.data and any(x.startswith("train.epochs=") for x in args.opts):
                raise ValueError(
                    "train.epochs: it counts the images of --data, which is not given; set "
                    "train.max_iter"
                )
            device = resolve_device(cfg.train.device)
            compat.check_processes(device, args.num_gpus, args.num_machines)
            output = cfg.train.output_dir
            check_output(output)
            if args.machine_rank == 0:  # machines share the folder
                stack.enter_context(locked(output))
            stack.enter_context(unchanged_if_refused(output, ("data", "inference")))
            if args.eval_only:
                inference = os.path.join(output, "inference")
                stack.enter_context(unchanged_if_refused(inference, ("data", *NETWORKS)))
            found = check_run(cfg, resume=args.resume, eval_only=args.eval_only)
            if found.seed is not None and (cfg.train.seed is None or cfg.train.seed < 0):
                cfg.train.seed = found.seed
            if layout:
                folder = data_folder(cfg, args.eval_only)
                write_coco_files(layout, folder, replace=args.eval_only or not args.resume)
                notes = describe_data(cfg, layout)
            name_classes(cfg)
        _launch(args, cfg, notes, device, found)


def _launch(
    args: argparse.Namespace, cfg: DictConfig, notes: list[str], device: str, found: Found
) -> None:
    with ExitStack() as stack:
        if args.num_gpus > 1 and not compat.under_torchrun():
            stack.enter_context(passed_on())
        try:
            compat.launch(
                run,
                args=(args, cfg, notes, found),
                device=device,
                num_gpus=args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
            )
        except torch.multiprocessing.ProcessExitedException as error:
            # The process has printed the reason, unless a signal killed it.
            code = error.exit_code
            sys.exit(code if code >= 0 else 128 - code)


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


def run(
    args: argparse.Namespace,
    cfg: DictConfig,
    notes: Sequence[str] = (),
    found: Found = NOTHING_FOUND,
) -> None:
    """Trains or evaluates, in each process.

    Args:
        args: of the command line.
        cfg: the whole config.
        notes: logged before.
        found: the checkpoint to resume from, or with ``--eval-only`` to evaluate.
    """
    with stoppable() as signals:
        with user_errors():
            if multiprocessing.parent_process() is not None:
                load_config(args.config_file, trusted=args.trust)  # registers its datasets here too
            set_up(cfg, args)
            model = build(cfg, "model").to(resolve_device(cfg.train.device))
            about = describe_run(cfg, model, config_file=args.config_file, resume_from=found.path)
            for line in [*about, *notes]:
                logger.info(line)
            for line in found.warnings:
                logger.warning(line)
        if args.replay:
            do_replay(cfg, model, signals, args.replay)
        elif args.eval_only:
            do_eval(cfg, model, found.path)
        else:
            if args.resume and not found.path:
                folder = cfg.train.output_dir
                logger.info(f"--resume: {folder} has no checkpoint; this is a new training")
            do_train(cfg, model, signals, resume_from=found.path, dry_run=args.dry_run)


def do_eval(cfg: DictConfig, model: nn.Module, last: str = "") -> dict[str, Any]:
    """Evaluates a checkpoint and writes the results to ``inference/results.json``.

    Args:
        cfg: the whole config.
        model: built from it.
        last: the checkpoint of a training; "" for ``train.init_checkpoint``.
    """
    with user_errors():
        source = "--resume: checkpoint" if last else "train.init_checkpoint"
        path = last or cfg.train.init_checkpoint
        evaluated = list(model_info(model).evaluated.values())
        load_weights(model, path, source=source, complete=evaluated)
        loader = build_test_loader(cfg, model)
    try:
        results = evaluate_and_write(model, loader, cfg)
    except UnreadableImage as error:
        with user_errors():
            raise UnreadableImage(error.line) from error
    table = figures_table(*split_figures(flatten_results_dict(results)))
    logger.info("\n".join([f"Results of {path}", "", *table]))
    return results


def do_train(
    cfg: DictConfig,
    model: nn.Module,
    signals: StopSignals,
    *,
    resume_from: str = "",
    dry_run: bool = False,
) -> None:
    """Trains from the initial weights, or from a checkpoint of the training."""
    folder = cfg.train.output_dir
    start_iter = 0
    with user_errors():
        load_initial_weights(model, cfg.train.init_checkpoint, resume_from=resume_from)
        trainer, checkpointer = build_trainer(cfg, model, signals, dry_run=dry_run)
        if resume_from:
            start_iter = resume(trainer, checkpointer, resume_from, max_iter=cfg.train.max_iter)
    for line in describe_training(cfg, trainer.optimizer):
        logger.info(line)
    if comm.is_main_process():
        cut_metrics(os.path.join(folder, "metrics.json"), start_iter)
        if start_iter == cfg.train.max_iter:
            checkpointer.finish(resume_from)
    comm.synchronize()
    source = f" with {resume_from}" if resume_from else ""
    logger.info(f"Starting training from iteration {start_iter}{source}")
    # After some calls TorchScript optimizes Detectron2's focal loss, which changes its rounding: on
    # a CPU a resumed run would not equal the whole run exactly.
    with (
        torch.jit.optimized_execution(resolve_device(cfg.train.device) != "cpu"),
        signals.deferred(),
    ):
        trainer.train(start_iter, cfg.train.max_iter)
    if comm.is_main_process() and not dry_run:
        results = collect_results(
            folder, best_metric=cfg.train.best.metric, stopped_early=trainer.stopped_early
        )
        with told_in_one_line():
            write_results(folder, results)
        if warning := blow_up(read_metrics(os.path.join(folder, "metrics.json"))):
            logger.warning(warning)


def do_replay(cfg: DictConfig, model: nn.Module, signals: StopSignals, path: str) -> None:
    """Repeats a step whose losses were not finite, and logs where they come from."""
    with user_errors():
        step = read_step(path)
        load_initial_weights(model, cfg.train.init_checkpoint)
        trainer, _ = build_trainer(cfg, model, signals, dry_run=True)
        lines = replay(trainer, step, max_iter=cfg.train.max_iter)
    for line in lines:
        logger.info(line)


if __name__ == "__main__":
    main()
