"""Steps whose losses are not finite: what was wrong, a file that repeats them, and skipping."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils import comm
from torch import Tensor, nn

from lad.checkpoint.write import damage, write_checkpoint
from lad.modeling.network import DenseNetwork, model_info

logger = logging.getLogger(__name__)

_STRUCTURES = [Instances, Boxes, PolygonMasks, BitMasks, Keypoints]


class Wrong(NamedTuple):
    """A batch of a process with losses that are not finite.

    Attributes:
        losses: all of the batch's losses by name.
        images: its file names, or else ids.
        rank: of the process.
    """

    losses: dict[str, float]
    images: list[str]
    rank: int

    def __str__(self) -> str:
        wrong = [f"{k} is {x}" for k, x in self.losses.items() if not math.isfinite(x)]
        return f"{', '.join(wrong)} on {', '.join(self.images)}"


def find_wrong(
    batches: Sequence[list[dict]], losses: Sequence[Mapping[str, Tensor]]
) -> list[Wrong]:
    """Returns the batches of a step, over all processes, with losses that are not finite.

    Every process has to call it, and gets the same.

    Args:
        batches: of this process.
        losses: of each batch.
    """
    found = []
    for batch, values in zip(batches, losses, strict=True):
        stacked = torch.stack([x.float() for x in values.values()]).tolist()  # one copy from a GPU
        numbers = dict(zip(values, stacked, strict=True))
        if not all(map(math.isfinite, numbers.values())):
            images = [str(x.get("file_name", x.get("image_id", "?"))) for x in batch]
            found.append(Wrong(numbers, images, comm.get_rank()))
    return [x for of_rank in comm.all_gather(found) for x in of_rank]


def broken_weights(model: nn.Module) -> list[str]:
    """Returns the names of parameters that have numbers which are not finite."""
    return [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]


class Snapshot:
    """What a step changes in a model besides its weights, to be put back.

    Args:
        model: without DistributedDataParallel.
        buffers: whether to keep its buffers as well, such as statistics of batch norm.
    """

    def __init__(self, model: nn.Module, *, buffers: bool):
        info = model_info(model)
        self._roles = info.roles
        self._student_teaches = info.roles.student_teaches if info.roles else False
        networks = [x for x in info.networks.values() if isinstance(x, DenseNetwork)]
        self._states = [(network, dict(network.training_state())) for network in networks]
        self._buffers = [(x, x.clone()) for x in model.buffers()] if buffers else []

    @torch.no_grad()
    def restore(self) -> None:
        """Puts everything back."""
        if self._roles is not None:
            self._roles.student_teaches = self._student_teaches
        for network, state in self._states:
            network.load_training_state(state)
        for buffer, value in self._buffers:
            buffer.copy_(value)


def write_step(
    folder: str, model: nn.Module, trainer: Mapping[str, Any], batches: Sequence[list[dict]]
) -> str:
    """Writes a file that `read_step` reads; returns its path.

    Args:
        folder: of the run.
        model: with the weights of the step, not wrapped in DistributedDataParallel.
        trainer: state of the trainer; optimizer and averages are left out.
        batches: of this process, as the model gets them.
    """
    iteration = trainer["iteration"]
    hooks = {k: x for k, x in trainer.get("hooks", {}).items() if k != "EMAHook"}
    content = {
        "model": model.state_dict(),
        "trainer": {"iteration": iteration, "hooks": hooks},
        "batches": list(batches),
        "rank": comm.get_rank(),
    }
    path = os.path.join(folder, f"nonfinite_{iteration:07d}.pt")
    write_checkpoint(content, path)
    return path


def read_step(path: str) -> dict[str, Any]:
    """Reads a file of `write_step`, without running code from it.

    Raises:
        ValueError: if it is no such file, or is damaged.
        FileNotFoundError: if there is none.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"--replay {path}: there is no such file")
    try:
        with torch.serialization.safe_globals(_STRUCTURES):
            content = torch.load(path, map_location="cpu", weights_only=True)
        problem = damage(path)
        keys = {"model", "trainer", "batches", "rank"}
        whole = isinstance(content, dict) and keys <= content.keys()
    except PermissionError:
        raise
    except Exception as error:  # a damaged file can raise anything, OSError too
        raise ValueError(f"--replay {path}: it is damaged, or no file of a step") from error
    if problem or not whole:
        raise ValueError(f"--replay {path}: {problem or 'it is no file of a step'}")
    return content
