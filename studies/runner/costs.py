"""What a training step of each method costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

from studies.runner import results
from studies.runner.definition import Method
from studies.runner.jobs import Runner


def costs(runner: Runner, methods: Sequence[Method], rounds: int = 7) -> dict[str, Any]:
    """Returns the CPU time of a step on one thread over that of the first baseline among them.

    The methods take turns on one batch in one process, so that other load on the machine affects
    all alike. The networks have random weights.
    """
    torch.set_num_threads(1)
    baselines = {method.baseline for method in methods}
    unit = next((x.name for x in methods if x.name in baselines), methods[0].name)
    configs = {method.name: runner.config(method) for method in methods}
    batch = next(iter(instantiate(configs[unit].dataloader.train)))
    models = {name: instantiate(config.model).train() for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            start = time.process_time()
            with EventStorage():
                sum(model(batch).values()).backward()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    ratios = {name: round(value / medians[unit], 3) for name, value in medians.items()}
    return {"unit": unit, "ratios": ratios, **results.machine("cpu")}
