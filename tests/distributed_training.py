"""Trains LAD and CoLAD for some steps on this process' share of the batches; writes what came out.

torchrun --nproc_per_node 2 tests/distributed_training.py OUTPUT
"""

import sys
from pathlib import Path

import torch
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from helpers import ToyLoss, make_batch, make_gfl, make_lgd, make_paa
from lad.assignment.indicators import Fisher, StdMean
from lad.assignment.switch import RoleSwitch
from lad.engine.evaluation import share_buffers
from lad.modeling.distill_losses.bckd import BCKD
from lad.modeling.distill_losses.ld import LD
from lad.modeling.distill_losses.pgd import PGD
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD, Distillation

NAMES = (
    "lad",
    "lad_toy",
    "lad_late",
    "lad_lgd",
    "lgd_frozen",
    "lad_switch",
    "colad",
    "colad_fisher",
    "gfl_ld",
    "lad_bckd",
    "lad_pgd",
)
# Those that do not depend on which images a process has.
DISTILL_LOSSES = {"lad_bckd": BCKD, "lad_pgd": PGD}
BOX = [[5.0, 5, 40, 50], [50.0, 10, 90, 60], [10.0, 10, 30, 30]]
# Two images per batch. In the second batch the second image, in the third both have no objects.
BATCHES = [
    make_batch([BOX[:2], BOX[2:]]),
    make_batch([BOX, []], seed=1),
    make_batch([[], []], seed=2),
    make_batch([BOX[1:], BOX[:1]], seed=3),
]


def build(name: str):
    """Builds a tiny model without batch statistics."""
    if name == "gfl_ld":
        return LAD(student=make_gfl(0), teacher=make_gfl(1), distill_losses=[LD()])
    pair = {"student": make_paa(0), "teacher": make_paa(1)}
    if name == "lad":
        return LAD(**pair, distill_losses=[SoftLabelLoss(min_iou=0.1)])
    if name in DISTILL_LOSSES:
        return LAD(**pair, distill_losses=[DISTILL_LOSSES[name]()])
    if name in ("lad_toy", "lad_late"):  # a loss with parameters
        torch.manual_seed(0)
        return LAD(**pair, distill_losses=[ToyLoss(start=0.5 if name == "lad_late" else 0.0)])
    if "lgd" in name:
        lgd = make_lgd()
        if name == "lgd_frozen":
            return Distillation(student=pair["student"], distill_losses=[lgd])
        return LAD(**pair, distill_losses=[lgd])
    if name == "lad_switch":
        return LAD(**pair, switch=RoleSwitch(indicator=StdMean()))
    indicator = Fisher() if name == "colad_fisher" else StdMean()
    return CoLAD(**pair, switch=RoleSwitch(indicator=indicator))


def train(name: str) -> dict:
    """Returns the losses of each step (mean over processes), roles and final weights."""
    model = build(name).train()
    wrapped = model
    if comm.get_world_size() > 1:
        wrapped = DistributedDataParallel(
            model, broadcast_buffers=False, find_unused_parameters=name == "lgd_frozen"
        )
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01)
    losses, roles, indicators = [], [], []
    bottom_up = model.student.backbone.bottom_up
    for index, batch in enumerate(BATCHES):
        if name == "lgd_frozen":  # in the first two steps
            bottom_up.requires_grad_(index >= 2)
        model.progress.share = index / len(BATCHES)
        share = batch[comm.get_rank() :: comm.get_world_size()]
        values = wrapped(share)
        optimizer.zero_grad()
        sum(values.values()).backward()
        optimizer.step()
        stacked = torch.stack([values[key].detach() for key in sorted(values)])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(stacked)
        losses.append(stacked / comm.get_world_size())
        if model.roles is not None:
            roles.append(bool(model.roles.student_teaches))
            indicators.append(torch.stack(model.roles.record[:2]))
    return {
        "losses": torch.stack(losses),
        "roles": roles,
        "indicators": indicators,
        "weights": dict(model.state_dict()),
    }


def main(output: str) -> None:
    """Trains every model and saves the results of this process."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    results = {name: train(name) for name in NAMES}
    norm = torch.nn.BatchNorm1d(1)
    norm(torch.arange(4.0)[:, None] + comm.get_rank())  # each process has other images
    share_buffers(norm)
    results["shared"] = norm.running_mean
    torch.save(results, Path(output) / f"rank{comm.get_rank()}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
