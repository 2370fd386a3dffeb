"""Losses on the test images."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from functools import partial

import torch
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import BaseMaskRCNNHead, ROIHeads
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lad.data.loader import seeded
from lad.engine.config import build

# Detectors that give losses or detections, depending on their mode.
_DETECTORS = (DenseDetector, GeneralizedRCNN, RPN, ROIHeads, BaseMaskRCNNHead)
_NODE = "dataloader.test"


def build_loss_loader(config: DictConfig) -> DataLoader:
    """Builds a loader of the test images with their labels, one image a batch.

    With several processes each has the same number of images, since losses are normalized over all
    of them; so up to one image fewer than there are processes comes twice.

    Raises:
        ValueError: if the test loader of the config cannot give labels.
    """
    config = copy.deepcopy(config)
    if OmegaConf.select(config, f"{_NODE}.mapper.is_train") is None:
        raise ValueError(
            f"train.eval_losses needs {_NODE}.mapper.is_train to be true, but that mapper has no "
            "such option: set train.eval_losses=false"
        )
    mapper = config.dataloader.test.mapper
    mapper.is_train = True
    for key in ("use_instance_mask", "instance_mask_format"):
        value = OmegaConf.select(config, f"dataloader.train.mapper.{key}")
        if value is not None:
            mapper[key] = value
    loader = build(config, _NODE)
    if "instances" not in loader.dataset[0]:
        raise ValueError("train.eval_losses: the test images have no labels; set it to false")
    rank, size, total = comm.get_rank(), comm.get_world_size(), len(loader.dataset)
    return DataLoader(
        loader.dataset,
        sampler=[i % total for i in range(rank, rank + -(-total // size) * size, size)],
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        # Without its own generator a DataLoader draws from the global one.
        generator=torch.Generator(),
    )


def mean_losses(model: nn.Module, loader: Iterable[list[dict]]) -> dict[str, float]:
    """Returns the mean losses of a model over a loader, as ``val/...``.

    It works on a copy of the model: nothing that lasts over steps changes. Batch norm and dropout
    are in evaluation mode, and random numbers are the same at each call. Every process has to call
    it, with as many batches.

    Args:
        model: gives a dict of losses in training mode; not wrapped in DistributedDataParallel.
        loader: batches with ground truth.

    Returns:
        Means over batches and processes; empty in all processes but the first.
    """
    model = _copy_for_losses(model)
    sums: dict[str, Tensor] = {}
    count = 0
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.no_grad(), EventStorage(), seeded(0), torch.random.fork_rng(gpus):
        torch.manual_seed(0)
        for batch in loader:
            count += 1
            for name, loss in model(batch).items():
                sums[name] = sums.get(name, 0) + loss.detach()
    means = {name: float(x) / count for name, x in sums.items()}
    ranks = comm.gather(means)
    if not ranks:
        return {}
    # A process whose losses are all NaN may lack some.
    losses = {name: sum(x.get(name, math.nan) for x in ranks) / len(ranks) for name in means}
    if not losses:
        return {}
    return {"val/total_loss": sum(losses.values()), **{f"val/{k}": x for k, x in losses.items()}}


def _copy_for_losses(model: nn.Module) -> nn.Module:
    """Returns a copy whose detectors, but not their parts, are in training mode.

    The losses of Detectron2's dense detectors are divided by each batch's own number, not by a mean
    over the training's batches.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if module is model or isinstance(module, _DETECTORS):
            module.training = True
        if isinstance(module, DenseDetector):
            module._ema_update = partial(module._ema_update, momentum=0.0)
    return model
