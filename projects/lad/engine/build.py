"""Building of a trainer with its hooks and writers from a config."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lad import compat
from lad.engine.config import build
from lad.engine.dry_run import DryRun
from lad.engine.evaluation import EvaluationHook, evaluate, evaluate_and_write
from lad.engine.hooks import (
    BestCheckpointer,
    EMAHook,
    IterationSeed,
    ModelHook,
    TrainingStateHook,
)
from lad.engine.inspection import assignment_figures
from lad.engine.schedule import ProgressHook
from lad.engine.setup import (
    amp_dtype,
    build_optimizer,
    check_class_names,
    check_classes,
    check_unlabeled,
    checkpoint_period,
    resolve_device,
)
from lad.engine.signals import StopSignals, let_workers_finish
from lad.engine.stopping import (
    Checkpointer,
    EarlyStop,
    KeptCheckpoints,
    LatestCheckpointer,
    RecentMetrics,
)
from lad.engine.teacher import TEACHER, TeacherEvaluation, frozen_teacher
from lad.engine.trainer import Trainer, gradient_clipper
from lad.engine.validation import build_loss_loader, mean_losses
from lad.engine.writers import (
    ConsoleWriter,
    MetricsPeriod,
    MetricsWriter,
    ServiceWriter,
    TensorBoardWriter,
)


def build_test_loader(cfg: DictConfig, model: nn.Module) -> Any:
    """Builds the test loader and checks that an evaluation can work.

    Raises:
        ValueError: if it cannot, e.g. because data and model have different classes.
        OSError: if a file of the data is missing.
    """
    loader = build(cfg, "dataloader.test")
    let_workers_finish(loader)
    build(cfg, "dataloader.evaluator")  # each evaluation builds its own
    check_classes(model, cfg, "test")
    check_class_names(cfg)
    return loader


def build_trainer(
    cfg: DictConfig, model: nn.Module, signals: StopSignals, *, dry_run: bool = False
) -> tuple[Trainer, Checkpointer]:
    """Builds the trainer with its hooks, and the checkpointer that saves and resumes it.

    Raises:
        ValueError: if a value of the config cannot work.
        OSError: if a file of the data is missing.
    """
    train = cfg.train
    further = further_hooks(cfg, model)
    ddp = dict(train.ddp)
    if any(isinstance(hook, ModelHook) and hook.unused_parameters for hook in further):
        ddp["find_unused_parameters"] = True
    ddp_model = compat.create_ddp_model(model, device=resolve_device(train.device), **ddp)
    loader = build(cfg, "dataloader.train")
    let_workers_finish(loader)
    clip = train.clip_grad
    trainer = Trainer(
        ddp_model,
        loader,
        build_optimizer(cfg.optimizer, model),
        accumulate=train.accumulate,
        amp_dtype=amp_dtype(train),
        clip_grad=gradient_clipper(clip.type, clip.max) if clip.enabled else None,
        skip_nonfinite=train.get("skip_nonfinite") or 0,
        output_dir=None if dry_run else train.output_dir,
    )
    check_classes(model, cfg, "train")
    check_unlabeled(model, cfg)
    checkpointer = Checkpointer(model, train.output_dir, trainer=trainer)
    ema = EMAHook(model, train.ema.decay) if train.ema.enabled else None
    evaluated = model if ema is None else ema.model
    saving = saving_hooks(cfg, checkpointer, evaluated, signals, dry_run=dry_run)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            IterationSeed(train.seed),
            hooks.LRScheduler(scheduler=build(cfg, "lr_multiplier")),
            ProgressHook(),
            TrainingStateHook(),
            RecentMetrics(train.log_period),
            ema,
            *further,
            assignment_figures(cfg, model) if comm.is_main_process() and not dry_run else None,
            *([DryRun()] if dry_run else saving),
        ]
    )
    return trainer, checkpointer


def further_hooks(cfg: DictConfig, model: nn.Module) -> list[HookBase]:
    """Builds the hooks that the config adds.

    Raises:
        ValueError: if one is no hook or cannot work with the model.
    """
    built = []
    for index in range(len(cfg.train.hooks)):
        key = f"train.hooks.{index}"
        hook = build(cfg, key)
        if not isinstance(hook, HookBase):
            raise ValueError(f"{key}: {type(hook).__name__} is no hook of Detectron2; remove it")
        if isinstance(hook, ModelHook):
            hook.check(model)
        built.append(hook)
    return built


def saving_hooks(
    cfg: DictConfig,
    checkpointer: Checkpointer,
    evaluated: nn.Module,
    signals: StopSignals,
    *,
    dry_run: bool = False,
) -> list[HookBase | None]:
    """Returns the hooks that save, evaluate, stop and write the log, in their order."""
    train = cfg.train
    main_process = comm.is_main_process()
    options = {**train.checkpointer, "period": checkpoint_period(train)}
    saving: list[HookBase | None] = [
        KeptCheckpoints(checkpointer, **options) if main_process else None,
        LatestCheckpointer(checkpointer, signals, minutes=train.get("checkpoint_minutes")),
    ]
    metric, period = train.best.metric, train.eval_period
    if "evaluator" in cfg.dataloader:
        loader = build_test_loader(cfg, evaluated)
        function = evaluation_function(cfg, evaluated, loader)
        saving.append(
            EvaluationHook(period, function, output_dir=train.output_dir, signals=signals)
        )
        if not dry_run and train.get("eval_teacher", True) and frozen_teacher(evaluated):
            node, names = cfg.dataloader.evaluator, {TEACHER: TEACHER}
            function = partial(evaluate, evaluated, loader, node, names)
            saving.append(TeacherEvaluation(function, signals=signals))
        if main_process and metric:
            saving.append(
                BestCheckpointer(
                    eval_period=period,
                    model=evaluated,
                    output_dir=train.output_dir,
                    metric=metric,
                )
            )
        if patience := OmegaConf.select(train, "early_stop.patience"):
            saving.append(
                EarlyStop(checkpointer, eval_period=period, metric=metric, patience=patience)
            )
    if main_process:
        saving.append(MetricsPeriod(writers(cfg, dry_run=dry_run), train.log_period))
    return saving


def evaluation_function(
    cfg: DictConfig, model: nn.Module, loader: Any
) -> Callable[[], dict[str, Any]]:
    """Returns a function that evaluates a model, and its losses with ``train.eval_losses``."""
    function = partial(evaluate_and_write, model, loader, cfg)
    if not cfg.train.get("eval_losses"):
        return function
    labeled = build_loss_loader(cfg)
    let_workers_finish(labeled)
    return lambda: {**function(), **mean_losses(model, labeled)}


def writers(cfg: DictConfig, *, dry_run: bool = False) -> list[EventWriter]:
    """Returns Detectron2's writers and those that the config adds; a dry run opens no service.

    Raises:
        ValueError: if one is no writer, or its package is missing.
    """
    folder, window = cfg.train.output_dir, cfg.train.log_period
    further = []
    for index in range(len(cfg.train.get("writers", ()))):
        key = f"train.writers.{index}"
        writer = build(cfg, key)
        if not isinstance(writer, EventWriter):
            raise ValueError(f"{key}: {type(writer).__name__} is no EventWriter of Detectron2")
        further.append(writer)
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    for writer in [] if dry_run else further:
        if isinstance(writer, ServiceWriter):
            writer.start(values, window)
    return [
        ConsoleWriter(cfg.train.max_iter, window),
        MetricsWriter(os.path.join(folder, "metrics.json"), window),
        TensorBoardWriter(folder, window),
        *([] if dry_run else further),
    ]
