"""A training that takes milliseconds: model, data and evaluator for the engine's tests."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor, nn

from lad import register_target
from lad.data import build_train_loader
from lad.modeling.network import ModelInfo


@register_target
class ToyModel(nn.Module):
    """Two linear layers with dropout, trained toward the images' targets.

    Args:
        channels: between the layers.
        dropout: its probability.
        fail_at: targets from there on give a loss that is not a number.
    """

    def __init__(self, *, channels: int = 4, dropout: float = 0.2, fail_at: float = float("inf")):
        super().__init__()
        self.fail_at = fail_at
        self.hidden = nn.Linear(3, channels)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels, 1)
        self.register_buffer("calls", torch.zeros(()))

    def predict(self, inputs: list[dict]) -> Tensor:
        """Returns a number per image."""
        pixels = torch.stack([x["image"].mean((1, 2)) for x in inputs])
        return self.output(self.dropout(self.hidden(pixels).relu()))[:, 0]

    def forward(self, inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Means over the images as losses in training, else the numbers."""
        predictions = self.predict(inputs).float()
        if not self.training:
            return [{"number": x} for x in predictions]
        self.calls += 1
        targets = torch.tensor([x["target"] for x in inputs])
        if targets.max() >= self.fail_at:
            predictions = predictions * float("nan")
        return {
            "loss_square": (predictions - targets).square().mean(),
            "loss_size": 0.1 * predictions.abs().mean(),
        }


@register_target
class PairModel(nn.Module):
    """Two toys, each trained and each evaluated."""

    def __init__(self, *, student: ToyModel, teacher: ToyModel, teacher_checkpoint: str = ""):
        super().__init__()
        self.student, self.teacher = student, teacher
        self.checkpoints = {"student": "", "teacher": teacher_checkpoint}

    def forward(self, inputs: list[dict]) -> dict[str, Tensor]:
        """Both networks' losses."""
        return {
            f"{name}/{key}": loss
            for name, network in self.info().networks.items()
            for key, loss in network(inputs).items()
        }

    def info(self) -> ModelInfo:
        """Both networks are evaluated."""
        networks = {"student": self.student, "teacher": self.teacher}
        return ModelInfo(networks, {name: name for name in networks}, self.checkpoints)


@register_target
def toy_mapper(record: dict) -> dict:
    """An image of noise from all three generators, around the record's number."""
    noise = torch.rand(3, 4, 4) + np.random.rand() + random.random()
    return {**record, "image": noise * record["target"]}


@register_target
def toy_records(size: int = 12) -> list[dict]:
    """Images numbered from 0, targets from 0 to 1."""
    return [{"image_id": i, "width": 4, "height": 4, "target": i / size} for i in range(size)]


@register_target
def build_toy_loader(*, total_batch_size: int = 4, seed: int = 0, size: int = 12) -> object:
    """The project's loader over the toy images, in the training's process."""
    return build_train_loader(
        dataset=toy_records(size), mapper=toy_mapper, total_batch_size=total_batch_size, seed=seed
    )


@register_target
class SameWeights(HookBase):
    """Checks after each step that all ranks have the same weights, and logs how many they are."""

    def after_step(self) -> None:
        """Compares with rank 0."""
        weights = torch.cat([p.detach().flatten() for p in self.trainer.model.parameters()])
        ranks = comm.all_gather(weights)
        assert all(torch.equal(x, ranks[0]) for x in ranks)
        self.trainer.storage.put_scalar("ranks", len(ranks))


@register_target
class KillItself(HookBase):
    """Kills the training's process before a step, as kill -9 does.

    Args:
        iteration: of the step.
    """

    def __init__(self, *, iteration: int):
        self.iteration = iteration

    def before_step(self) -> None:
        """Kills the process once the iteration is reached."""
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


@register_target
class KillOneRank(KillItself):
    """Kills one of several processes before a step.

    Args:
        iteration: of the step.
        rank: of the process.
    """

    def __init__(self, *, iteration: int, rank: int):
        super().__init__(iteration=iteration)
        self.rank = rank

    def before_step(self) -> None:
        """Kills it, if it is this process."""
        if comm.get_rank() == self.rank:
            super().before_step()


@register_target
class SignalItself(HookBase):
    """Sends a signal to the training's process before a step.

    Args:
        iteration: of the step.
        number: of the signal.
        rank: of the process that gets it.
    """

    def __init__(self, *, iteration: int, number: int = signal.SIGTERM, rank: int = 0):
        self.iteration = iteration
        self.number = number
        self.rank = rank

    def before_step(self) -> None:
        """Sends it once the iteration is reached."""
        if self.trainer.iter == self.iteration and comm.get_rank() == self.rank:
            os.kill(os.getpid(), self.number)


@register_target
class ToyTestLoader:
    """Three batches of one image each."""

    def __iter__(self) -> Iterator[list[dict]]:
        for record in toy_records(3):
            yield [{**record, "image": torch.full((3, 4, 4), record["target"])}]

    def __len__(self) -> int:
        return 3


@register_target
class ToyEvaluator(DatasetEvaluator):
    """The sum of all numbers as the metric "toy/AP"."""

    def __init__(self, *, output_dir: str | None = None):
        self.output_dir = output_dir

    def reset(self) -> None:
        """Forgets what was summed."""
        self._sum = 0.0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Adds a batch."""
        self._sum += sum(x["number"].item() for x in outputs)

    def evaluate(self) -> dict:
        """Returns the metric."""
        return {"toy": {"AP": self._sum}}
