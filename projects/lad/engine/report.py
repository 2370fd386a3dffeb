"""What a training says at its start and at its end."""

from __future__ import annotations

import logging
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import detectron2
import torch
from detectron2.utils import comm
from omegaconf import DictConfig
from tabulate import tabulate
from torch import nn

from lad import __version__
from lad.engine.evaluation import write_json
from lad.engine.setup import amp_dtype, checkpoint_period, resolve_device
from lad.files import write_text
from lad.metrics import read_metrics, series
from lad.modeling.network import model_info

logger = logging.getLogger(__name__)

BLOWN_UP = 5  # a training whose losses grow so many times has gone wrong
# COCO's figures, in its order.
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def describe_run(
    config: DictConfig, model: nn.Module, *, config_file: str = "", resume_from: str = ""
) -> list[str]:
    """Returns the lines at the start of a run: versions, device, networks and their weights."""
    device = resolve_device(config.train.device)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    if device == "cpu":
        name += f", {torch.get_num_threads()} thread(s)"
    if comm.get_world_size() > 1:
        name += f", {comm.get_world_size()} processes"
    versions = f"lad {__version__}, PyTorch {torch.__version__}"
    lines = [f"{versions}, Detectron2 {detectron2.__version__}; device: {name}"]
    folder = config.train.output_dir
    source = f"{config_file}, " if config_file else ""
    lines.append(f"Config: {source}as a whole in {os.path.join(folder, 'config.yaml')}")
    return lines + _networks(config, model, resume_from)


def _networks(config: DictConfig, model: nn.Module, resume_from: str) -> list[str]:
    """Returns a line for the model and one for each network of a method."""
    info = model_info(model)
    lines = []
    if list(info.networks) != [""]:
        losses = [type(x).__name__ for x in getattr(model, "distill_losses", ())]
        extras = ["role switch"] * (info.roles is not None) + losses
        lines.append(", ".join([f"Method: {type(model).__name__}", *extras]))
    for name, network in info.networks.items():
        size = sum(p.numel() for p in network.parameters()) / 1e6
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6
        state = f"{trained:.1f} M trained" if trained else "frozen"
        source = resume_from or info.checkpoints.get(name) or config.train.init_checkpoint
        weights = f"weights: {source}" if source else "random initial weights"
        label = name.capitalize() if name else "Model"
        lines.append(
            f"{label}: {type(network).__name__}, {size:.1f} M parameters, {state}; {weights}"
        )
    return lines


def describe_training(config: DictConfig, optimizer: torch.optim.Optimizer) -> list[str]:
    """Returns the lines on length, optimizer and periods of a training."""
    train = config.train
    batch = config.dataloader.train.get("total_batch_size", "?")
    accumulate = f" x {train.accumulate}" if train.accumulate > 1 else ""
    options = [f"lr {max(g['lr'] for g in optimizer.param_groups):g}"]
    options.append(f"precision {amp_dtype(train) or 'float32'}")
    if train.clip_grad.enabled:
        options.append(f"gradients clipped to {train.clip_grad.type} {train.clip_grad.max:g}")
    if train.ema.enabled:
        options.append("averaged weights (EMA)")
    evaluation = "none"
    if "evaluator" in config.dataloader:
        every = f"every {train.eval_period} and " if train.eval_period else ""
        evaluation = f"{every}after the last"
    minutes = train.get("checkpoint_minutes")
    clock = f" and {minutes:g} minutes" if minutes else ""
    return [
        f"Training: {train.max_iter} iterations of {batch}{accumulate} images, seed {train.seed}; "
        f"{type(optimizer).__name__}, {', '.join(options)}",
        f"Evaluation: {evaluation}; checkpoint every {checkpoint_period(train)} iterations{clock}",
        f"Output: {train.output_dir} (log.txt, metrics.json, TensorBoard); "
        "Ctrl-C saves and stops, --resume goes on",
    ]


def blow_up(rows: Sequence[Mapping[str, float]]) -> str:
    """Returns a warning if the losses at the end are many times those at the start, else "".

    Args:
        rows: of metrics.json.
    """
    losses = series(rows, "total_loss")[1]
    count = min(5, len(losses) // 2)
    if not count:
        return ""
    first, last = (statistics.median(x) for x in (losses[:count], losses[-count:]))
    if not last > BLOWN_UP * first > 0:
        return ""
    return (
        f"the losses have grown from {first:.3g} to {last:.3g}: the learning rate is too high for "
        "this model and batch size; lower optimizer.lr"
    )


class Best(NamedTuple):
    """The best evaluation of a run, after ``iteration`` iterations."""

    metric: str
    value: float
    iteration: int


class Results(NamedTuple):
    """What a training has reached.

    Attributes:
        iterations: done.
        figures: of the last evaluation, {network: {task: {figure: value}}}; the only network is "".
        classes: of the last evaluation, {network: {task: {class: AP}}}.
        losses: of the last evaluation with ``train.eval_losses``.
        best: evaluation; None without one.
        stopped_early: why; "" if it did not.
        files: paths by what they are.
    """

    iterations: int
    figures: dict[str, dict[str, dict[str, float]]]
    classes: dict[str, dict[str, dict[str, float]]]
    losses: dict[str, float]
    best: Best | None
    stopped_early: str
    files: dict[str, str]


def collect_results(
    folder: str, *, best_metric: str | None = None, stopped_early: str = ""
) -> Results:
    """Reads the results of a training in its output folder.

    Args:
        folder: with metrics.json.
        best_metric: name in metrics.json; by default the first network's box AP.
        stopped_early: why the training ended before its last iteration.
    """
    rows = read_metrics(os.path.join(folder, "metrics.json"))
    last: dict[str, float] = {}
    written: dict[str, int] = {}
    for row in sorted(rows, key=lambda x: x["iteration"]):
        last.update(row)
        written.update(dict.fromkeys(row, row["iteration"]))
    keys = sorted((k for k in last if "/AP" in k), key=lambda k: k.startswith("teacher/"))
    # Without detections an evaluation has no AP of a class: those before it are old.
    keys = [k for k in keys if written[k] == written.get(k.partition("/AP")[0] + "/AP", written[k])]
    evaluated = {k: last[k] for k in keys}  # the student first
    figures, classes = split_figures(evaluated)
    iterations = max((x["iteration"] for x in rows if "total_loss" in x), default=-1) + 1
    metric = best_metric or next((k for k in evaluated if k.rpartition("/")[2] == "AP"), "")
    known = [(i, x) for i, x in zip(*series(rows, metric), strict=True) if not math.isnan(x)]
    best = None
    if known:
        iteration, value = max(known, key=lambda x: (x[1], -x[0]))
        best = Best(metric, value, min(iteration + 1, iterations))
    losses = {k: x for k, x in last.items() if k.startswith("val/")}
    return Results(iterations, figures, classes, losses, best, stopped_early, _files(folder))


def split_figures(metrics: Mapping[str, float]) -> tuple[dict, dict]:
    """Sorts metrics such as "teacher/bbox/AP" and "bbox/AP-cat" by network and task.

    Returns:
        Figures and APs per class, each {network: {task: {name: value}}}.
    """
    figures: dict = {}
    classes: dict = {}
    for key, value in metrics.items():
        # The name of a class can have a slash.
        path, dash, class_name = key.partition("/AP-")
        if not dash:
            path, _, figure = key.rpartition("/")
        network, _, task = path.rpartition("/")
        if dash:
            classes.setdefault(network, {}).setdefault(task, {})[class_name] = value
        else:
            figures.setdefault(network, {}).setdefault(task, {})[figure] = value
    return figures, classes


def _files(folder: str) -> dict[str, str]:
    names = {
        "best checkpoint": "model_best.pth",
        "final checkpoint": "model_final.pth",
        "config": "config.yaml",
        "metrics": "metrics.json",
        "log": "log.txt",
        "detections on the test images": "inference",
    }
    paths = {what: os.path.join(folder, name) for what, name in names.items()}
    return {what: path for what, path in paths.items() if os.path.exists(path)}


def figures_table(figures: Mapping, classes: Mapping) -> list[str]:
    """Returns Markdown: a table of the networks' figures and one of the APs per class."""

    def label(network: str, task: str) -> str:
        return task if list(figures) == [""] else f"{network or 'student'} {task}"

    lines: list[str] = []
    columns = [(network, task) for network, tasks in figures.items() for task in tasks]
    shown = [x for x in FIGURES if any(x in figures[n][t] for n, t in columns)]
    if shown:
        rows = [
            [label(network, task), *(_number(figures[network][task].get(x)) for x in shown)]
            for network, task in columns
        ]
        lines += _markdown(rows, ["", *shown])
    columns = [(network, task) for network, tasks in classes.items() for task in tasks]
    names = list(dict.fromkeys(c for network, task in columns for c in classes[network][task]))
    if names:
        rows = [[name, *(_number(classes[n][t].get(name)) for n, t in columns)] for name in names]
        headers = ["class", *(f"{label(network, task)} AP" for network, task in columns)]
        lines += ["", *_markdown(rows, headers)]
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _markdown(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> list[str]:
    align = ["left", *["right"] * (len(headers) - 1)]
    # Without `disable_numparse` "0.00" is made shorter.
    table = tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True)
    return table.splitlines()


def results_markdown(results: Results) -> list[str]:
    """Returns the lines of results.md."""
    end = results.stopped_early or f"after {results.iterations} iterations"
    lines = [f"# Results, {end}", ""]
    lines += figures_table(results.figures, results.classes) or ["No evaluation."]
    lines.append("")
    if results.losses:
        losses = (f"{k.removeprefix('val/')} {x:.3f}" for k, x in results.losses.items())
        lines.append(f"- validation losses: {', '.join(losses)}")
    if results.best is not None:
        best = results.best
        lines.append(f"- best {best.metric}: {best.value:.2f} after iteration {best.iteration}")
    lines += [f"- {what}: {path}" for what, path in results.files.items()]
    return lines


def write_results(folder: str, results: Results) -> None:
    """Logs the results and writes ``results.md`` and ``results.json``."""
    lines = results_markdown(results)
    write_text(os.path.join(folder, "results.md"), "\n".join(lines) + "\n")
    best = None if results.best is None else results.best._asdict()
    content: dict[str, Any] = {**results._asdict(), "best": best}
    write_json(os.path.join(folder, "results.json"), content)
    logger.info("\n".join(lines).removeprefix("# "))
