"""Evaluation of a model's networks."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from detectron2.config import instantiate
from detectron2.engine import HookBase
from detectron2.evaluation import COCOEvaluator, inference_on_dataset, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import distributed, nn

from lad.data.images import UnreadableImage
from lad.engine.signals import Refused, StopSignals
from lad.engine.stopping import is_due
from lad.files import write_text
from lad.metrics import read_metrics
from lad.modeling.network import model_info

logger = logging.getLogger(__name__)


def evaluate(
    model: nn.Module,
    loader: Iterable,
    evaluator: DictConfig,
    evaluated: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Evaluates networks of a model; every process has to call it.

    Args:
        model: not wrapped in DistributedDataParallel.
        loader: test loader.
        evaluator: config node of Detectron2's evaluator; each network whose results have a prefix
            gets a folder in its ``output_dir``.
        evaluated: names of networks by the prefix of their results; None for those that
            `model_info` names.

    Returns:
        Results by task, e.g. ``{"bbox": {"AP": ...}}``, or ``{"student/bbox": ...}`` with a prefix;
        empty in all processes but the first.
    """
    share_buffers(model)
    results: dict[str, Any] = {}
    info = model_info(model)
    for prefix, name in (info.evaluated if evaluated is None else evaluated).items():
        node = evaluator
        if prefix and evaluator.get("output_dir"):
            node = copy.deepcopy(evaluator)
            node.output_dir = os.path.join(evaluator.output_dir, prefix)
        built = instantiate(node)
        with _prints_in_log(built):
            found = inference_on_dataset(info.networks[name], loader, built)
        for task, metrics in found.items():
            results[f"{prefix}/{task}" if prefix else task] = metrics
    print_csv_format(results)
    return results


def share_buffers(model: nn.Module) -> None:
    """Gives all processes the first one's buffers, which are saved.

    The running statistics of batch norm differ: each process has those of its own images.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def evaluate_and_write(model: nn.Module, loader: Iterable, config: DictConfig) -> dict[str, Any]:
    """Evaluates as `evaluate`, with ``inference/results.json`` in the run's output folder.

    Args:
        model: as for `evaluate`.
        loader: test loader.
        config: the whole config.
    """
    results = evaluate(model, loader, config.dataloader.evaluator)
    if comm.is_main_process():
        folder = os.path.join(config.train.output_dir, "inference")
        os.makedirs(folder, exist_ok=True)
        write_json(os.path.join(folder, "results.json"), flatten_results_dict(results))
    return results


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """Writes a dict; numbers that are not finite, which JSON has not, as null."""
    write_text(path, json.dumps(without_nan(content), indent=2) + "\n")


def without_nan(value: Any) -> Any:
    """Returns a value in which numbers that are not finite are None, in dicts and lists too."""
    if isinstance(value, Mapping):
        return {key: without_nan(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _prints_in_log(evaluator: object) -> Iterator[None]:
    """Moves what COCO's tools print ("creating index...") to log.txt."""
    if not isinstance(evaluator, COCOEvaluator):
        yield
        return
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        if printed.getvalue():
            logger.debug(printed.getvalue().rstrip())


class EvaluationHook(HookBase):
    """Evaluates every so many iterations and after the last one.

    Unlike Detectron2's ``EvalHook``, a signal ends it at once, and a resumed run repeats an
    evaluation that was not finished. ``eval_seconds`` in metrics.json marks finished ones.

    Args:
        period: iterations between evaluations; 0 for the last only.
        function: returns results by task, or metrics by name.
        output_dir: folder of metrics.json.
        signals: of the run.
    """

    def __init__(
        self,
        period: int,
        function: Callable[[], Mapping[str, Any]],
        *,
        output_dir: str,
        signals: StopSignals,
    ):
        self._period = period
        self._function = function
        self._metrics = os.path.join(output_dir, "metrics.json")
        self._signals = signals

    def before_train(self) -> None:
        """Repeats the evaluation of the iteration before, if it was due and is not finished."""
        step, storage = self.trainer.start_iter - 1, self.trainer.storage
        if not is_due(step, self._period, self.trainer.max_iter):
            return
        missing = False
        if comm.is_main_process():
            rows = read_metrics(self._metrics) if os.path.isfile(self._metrics) else []
            missing = not any(x["iteration"] == step and "eval_seconds" in x for x in rows)
        if any(comm.all_gather(missing)):
            storage.iter = step
            self._evaluate()
            storage.iter = step + 1

    def after_step(self) -> None:
        """Evaluates if it is time to."""
        if is_due(self.trainer.iter, self._period, self.trainer.max_iter):
            self._evaluate()

    def after_train(self) -> None:
        """Evaluates a training that has finished."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._evaluate()

    def _evaluate(self) -> None:
        storage = self.trainer.storage
        done = min(storage.iter + 1, self.trainer.max_iter)
        logger.info(f"Evaluating after iteration {done} of {self.trainer.max_iter}")
        start = time.perf_counter()
        try:
            with self._signals.deferred(False):
                metrics = flatten_results_dict(self._function())
        except UnreadableImage as error:
            self._signals.raised = True  # the step before is saved
            raise Refused(error.line) from error
        if comm.is_main_process():
            seconds = time.perf_counter() - start
            storage.put_scalars(**metrics, eval_seconds=seconds, smoothing_hint=False)
            logger.info(f"Evaluated in {seconds:.0f} s: {headline(metrics)}")
        comm.synchronize()


def headline(metrics: Mapping[str, float]) -> str:
    """Returns metrics of an evaluation in one line, without those of single classes.

    Args:
        metrics: such as ``{"bbox/AP": 31.2, "bbox/AP-cat": 40.0, "val/total_loss": 0.7}``.
    """
    shown = {name: x for name, x in metrics.items() if "/AP-" not in name}
    groups: dict[str, list[str]] = {}
    for name, value in shown.items():
        task, _, metric = name.rpartition("/")
        text = f"{value:.3f}" if "loss" in metric else f"{value:.2f}"
        groups.setdefault(task, []).append(f"{metric.removeprefix('loss_')} {text}")
    return "; ".join(f"{task} {', '.join(values)}".strip() for task, values in groups.items())
