"""What Detectron2 0.6 and upstream main do differently; the only file that knows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from detectron2.engine import launch as detectron2_launch
from detectron2.engine.defaults import create_ddp_model as detectron2_create_ddp_model
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.structures import Boxes
from detectron2.utils import comm
from torch import Tensor, distributed, nn

# Detectron2's own. The others wait so long while rank 0 computes COCO's figures.
TIMEOUT = timedelta(minutes=30)


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def check_processes(device: str, num_gpus: int, num_machines: int = 1) -> None:
    """Raises ValueError if `launch` cannot start so many processes."""
    if under_torchrun() or num_gpus * num_machines <= 1:
        return
    if device == "cpu":
        raise ValueError(
            f"--num-gpus {num_gpus} on {num_machines} machine(s) needs GPUs; start several "
            "processes on CPUs with: torchrun --nproc_per_node N train_net.py ..."
        )
    if num_gpus > torch.cuda.device_count():
        raise ValueError(
            f"--num-gpus {num_gpus}: this machine has {torch.cuda.device_count()}; ask for fewer"
        )


def launch(
    main: Callable[..., None],
    *,
    args: Sequence[Any],
    device: str,
    num_gpus: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
) -> None:
    """Runs ``main(*args)`` in every process of a training.

    Under torchrun its processes are used, on CPUs (gloo) or GPUs (nccl), and the other arguments
    are ignored. Else Detectron2's ``launch`` starts ``num_gpus`` processes.

    Args:
        main: picklable if several processes are to be started here.
        args: its arguments.
        device: "cpu" or "cuda".
        num_gpus: processes to start on this machine; more than one needs GPUs.
        num_machines: machines, each with so many processes.
        machine_rank: index of this machine.
        dist_url: address of the first machine.
    """
    if under_torchrun():
        _join_torchrun(device)
        main(*args)
        distributed.destroy_process_group()
        return
    detectron2_launch(
        main_func=main,
        num_gpus_per_machine=num_gpus,
        num_machines=num_machines,
        machine_rank=machine_rank,
        dist_url=dist_url,
        args=tuple(args),
    )


def _join_torchrun(device: str) -> None:
    if device == "cpu":
        distributed.init_process_group("gloo", timeout=TIMEOUT)
    else:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl", timeout=TIMEOUT)
    _create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    comm.synchronize()


def _create_local_process_group(processes_per_machine: int) -> None:
    """Creates the group of this machine's processes; 0.6 does so only inside its ``launch``."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes_per_machine)
        return
    # Every process has to create every group.
    for first in range(0, comm.get_world_size(), processes_per_machine):
        ranks = list(range(first, first + processes_per_machine))
        group = distributed.new_group(ranks)
        if comm.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group


def create_ddp_model(model: nn.Module, *, device: str, **options: Any) -> nn.Module:
    """Detectron2's ``create_ddp_model``, which assumes GPUs, on "cpu" too."""
    if device == "cpu":
        options["device_ids"] = None
    return detectron2_create_ddp_model(model, **options)


def fcos_matched_boxes(boxes: Tensor) -> list[Any]:
    """Returns (N, R, 4) matched boxes as FCOS's losses take them: 0.6 as Boxes, main as tensors."""
    return [Boxes(x) for x in boxes] if hasattr(FCOS, "match_anchors") else list(boxes)
