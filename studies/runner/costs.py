"""What a training step of each method costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

from studies.runner.definition import Method
from studies.runner.jobs import Runner
from studies.runner.tables import markdown


def costs(runner: Runner, methods: Sequence[Method], rounds: int = 7) -> str:
    """Returns the CPU time of a step on one thread relative to the first method's, as a table.

    The methods take turns on one batch in one process, so that other load on the machine affects
    all alike. The networks have random weights.
    """
    torch.set_num_threads(1)
    configs = {method.name: runner.config(method) for method in methods}
    first = methods[0].name
    batch = next(iter(instantiate(configs[first].dataloader.train)))
    models = {name: instantiate(config.model).train() for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            start = time.process_time()
            with EventStorage():
                sum(model(batch).values()).backward()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    rows = [[name, f"{value / medians[first]:.2f}"] for name, value in medians.items()]
    return markdown(["method", f"CPU time of a step, that of {first} = 1"], rows)
