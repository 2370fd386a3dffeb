"""Reductions over the processes of a distributed training."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor


def sum_over_ranks(values: Tensor) -> Tensor:
    """Returns the sum of ``values`` over all processes; every process must call it."""
    if comm.get_world_size() == 1:
        return values
    values = values.clone()
    torch.distributed.all_reduce(values)
    return values


def mean_over_ranks(values: Tensor) -> Tensor:
    """Returns the mean of ``values`` over all processes; every process must call it."""
    return sum_over_ranks(values) / comm.get_world_size()
