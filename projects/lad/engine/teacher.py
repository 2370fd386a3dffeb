"""What a training asks of its frozen teacher: the names of its classes, and its own AP."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils.registry import locate
from omegaconf import DictConfig
from torch import nn

from lad.data.images import UnreadableImage
from lad.data.names import read_class_names, trained_classes
from lad.engine.hooks import unwrap
from lad.engine.setup import dataset_names
from lad.engine.signals import Refused, StopSignals
from lad.modeling.network import is_frozen, model_info

logger = logging.getLogger(__name__)

TEACHER = "teacher"


def name_classes(config: DictConfig) -> None:
    """Makes lists of names of ``model.teacher_classes`` and ``model.student_classes``.

    Without the latter they are those of the training dataset. Nothing changes without the former.

    Raises:
        ValueError: if there are no names, or a frozen teacher was trained with ``--data`` on other
            classes and ``model.teacher_classes`` does not say so.
        FileNotFoundError: if a file does not exist.
    """
    model = config.model
    if model.get("teacher_classes") is None:
        _check_teachers_data(config)
        return
    model.teacher_classes = read_class_names(model.teacher_classes, "model.teacher_classes")
    student = model.get("student_classes") or next(iter(dataset_names(config, "train")), None)
    if student is None:
        raise ValueError(
            "model.teacher_classes: the training dataset has no name that tells the student's "
            "classes: list them in model.student_classes"
        )
    model.student_classes = read_class_names(student, "model.student_classes")


def _check_teachers_data(config: DictConfig) -> None:
    """Raises ValueError if a frozen teacher's own data have other classes than the training's."""
    checkpoint = config.model.get("teacher_checkpoint") or ""
    folder, names = os.path.dirname(checkpoint), dataset_names(config, "train")
    found = trained_classes(folder)
    is_run = os.path.isfile(os.path.join(folder, "config.yaml"))
    if not found or not is_run or not names:
        return
    target = config.model.get("_target_")
    method = locate(target) if isinstance(target, str) else target
    if getattr(method, "trains_teacher", False):
        return  # it learns them
    (file, theirs), ours = found, read_class_names(names[0], names[0])
    if theirs != ours:
        raise ValueError(
            f"model.teacher_checkpoint={checkpoint} was trained on the classes "
            f"{', '.join(theirs)}, the training data have {', '.join(ours)}: set "
            f"model.teacher_classes={file}"
        )


def frozen_teacher(model: nn.Module) -> bool:
    """Whether a model has a frozen teacher, and evaluates another network."""
    info = model_info(model)
    teacher = info.networks.get(TEACHER)
    return teacher is not None and is_frozen(teacher) and TEACHER not in info.evaluated.values()


class TeacherEvaluation(HookBase):
    """Evaluates a frozen teacher once before a training, and compares each of the student's AP.

    Its figures stand in metrics.json at iteration 0, as ``teacher/bbox/AP``. A resumed training has
    them in its checkpoint. Register it after the ``EvaluationHook``, in every process.

    Args:
        evaluate: returns the teacher's results by task, as {"teacher/bbox": {"AP": ...}}; empty in
            all processes but the first.
        signals: of the run; they end an evaluation at once.

    Attributes:
        results: the figures by name; empty before the training.
    """

    def __init__(self, evaluate: Callable[[], dict[str, Any]], *, signals: StopSignals):
        self._evaluate = evaluate
        self._signals = signals
        self.results: dict[str, float] = {}

    def before_train(self) -> None:
        """Evaluates, unless the training is resumed."""
        if self.trainer.start_iter > 0:
            return
        logger.info("Evaluating the frozen teacher (train.eval_teacher=false skips it)")
        try:
            with self._signals.deferred(False):
                results = flatten_results_dict(self._evaluate())
        except UnreadableImage as error:
            raise Refused(error.line) from error
        self.results = {name: float(value) for name, value in results.items()}
        self.trainer.storage.put_scalars(**self.results, smoothing_hint=False)
        for name, value in self._precisions().items():
            logger.info(f"The teacher's own {name}: {value:.1f}")

    def after_step(self) -> None:
        """Compares after an evaluation."""
        self._compare()

    def after_train(self) -> None:
        """Compares after the last evaluation."""
        self._compare()

    def _precisions(self) -> dict[str, float]:
        """Returns the AP by the names that the student's have, e.g. "bbox/AP"."""
        found = {k.removeprefix(f"{TEACHER}/"): v for k, v in self.results.items()}
        return {k: v for k, v in found.items() if k.endswith("/AP")}

    def _compare(self) -> None:
        storage = self.trainer.storage
        latest = storage.latest()
        for name, theirs in self._precisions().items():
            own, iteration = latest.get(name, (math.nan, -1))
            if iteration == storage.iter and own > theirs:
                advice = "use a better teacher"
                if len(getattr(unwrap(self.trainer.model), "distill_losses", ())):
                    advice += ", or let the loss end earlier (model.distill_losses.0.until)"
                logger.warning(
                    f"The student's {name}, {own:.1f}, is above its teacher's, {theirs:.1f}: "
                    f"{advice}"
                )

    def state_dict(self) -> dict[str, float]:
        """Returns the figures."""
        return dict(self.results)

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restores the figures."""
        self.results = dict(state_dict)
