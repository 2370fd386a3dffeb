"""What the losses and gradients of each method cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage

from lad.modeling.distillation import Distillation
from studies.runner import results
from studies.runner.definition import Method
from studies.runner.jobs import Runner


def costs(runner: Runner, methods: Sequence[Method], rounds: int = 15) -> dict[str, Any]:
    """Returns the CPU time of losses and gradients on one thread, over that of one method.

    That is the one that most others have as baseline. Data loading and the optimizer's step, which
    are equal for methods with one student, are not part of it.

    The methods take turns in one process, each on a batch of its own loader, so that other load on
    the machine affects all alike. The networks have random weights, the loaders one seed; losses
    that start or end in a training are as in its middle.
    """
    torch.set_num_threads(1)
    baselines = [method.baseline for method in methods]
    unit = max(methods, key=lambda method: baselines.count(method.name)).name
    models, batches = {}, {}
    for method in methods:
        config = runner.config(method)
        models[method.name] = instantiate(config.model).train()
        if isinstance(models[method.name], Distillation):
            models[method.name].progress.share = 0.5
        seed_all_rng(1)
        batches[method.name] = next(iter(instantiate(config.dataloader.train)))
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            start = time.process_time()
            with EventStorage():
                sum(model(batches[name]).values()).backward()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    ratios = {name: round(value / medians[unit], 3) for name, value in medians.items()}
    return {"unit": unit, "ratios": ratios, **results.machine("cpu")}
