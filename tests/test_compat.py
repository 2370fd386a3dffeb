"""Processes on CPUs; test_train_net.py trains with two of them."""

from __future__ import annotations

import os
import socket
import sys

import pytest
import torch
from detectron2.utils import comm
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from lad import compat


def test_one_process_calls_main():
    called = []
    compat.launch(lambda *args: called.append(args), args=(1, 2), device="cpu", num_gpus=1)
    assert called == [(1, 2)]
    assert not compat.under_torchrun()


def test_one_process_needs_no_wrapper():
    model = nn.Linear(1, 1)
    assert compat.create_ddp_model(model, device="cpu", broadcast_buffers=False) is model


def test_processes_that_cannot_be_started():
    compat.check_processes("cpu", 1)
    compat.check_processes("cuda", 0)
    with pytest.raises(ValueError, match=r"--num-gpus 2 on 1 machine.*torchrun --nproc_per_node"):
        compat.check_processes("cpu", 2)
    with pytest.raises(ValueError, match=r"--num-gpus 1 on 2 machine"):
        compat.check_processes("cpu", 1, 2)
    with pytest.raises(ValueError, match="--num-gpus 1000: this machine has"):
        compat.check_processes("cuda", 1000)


def _main() -> None:
    rank = comm.get_rank()
    # Two machines of two processes.
    assert (comm.get_local_rank(), comm.get_local_size()) == (rank % 2, 2)
    model = compat.create_ddp_model(nn.Linear(1, 1), device="cpu", fp16_compression=False)
    assert isinstance(model, DistributedDataParallel)
    model(torch.full((1, 1), float(rank))).sum().backward()
    assert model.module.weight.grad.item() == 1.5  # the mean over the ranks


def _process(rank: int, port: int) -> None:
    os.environ.update(
        MASTER_ADDR="localhost",
        MASTER_PORT=str(port),
        WORLD_SIZE="4",
        RANK=str(rank),
        LOCAL_RANK=str(rank % 2),
        LOCAL_WORLD_SIZE="2",
    )
    torch.set_num_threads(1)
    compat.launch(_main, args=(), device="cpu", num_gpus=1)
    assert not distributed.is_initialized()


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_torchruns_processes_join_by_machine():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # Forked: the children have PyTorch and Detectron2 imported already.
    multiprocessing.start_processes(_process, args=(port,), nprocs=4, start_method="fork")
