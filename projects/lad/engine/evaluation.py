"""Evaluation of a model's networks."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset, print_csv_format
from omegaconf import DictConfig
from torch import nn


def evaluated_networks(model: nn.Module) -> Mapping[str, nn.Module]:
    """Returns the networks to evaluate by name; a model without a say is evaluated as "" itself."""
    if hasattr(model, "evaluated_networks"):
        return model.evaluated_networks()
    return {"": model}


def evaluated_part(model: nn.Module) -> bool | str:
    """Returns the name of the only child network that an evaluation uses, True if it uses all."""
    if hasattr(model, "evaluated_networks"):
        return True
    return getattr(model, "eval_network", True)


def evaluate(model: nn.Module, loader: Iterable, evaluator: DictConfig) -> dict[str, Any]:
    """Evaluates a model; every process has to call it.

    Args:
        model: not wrapped in DistributedDataParallel.
        loader: test loader.
        evaluator: config node of Detectron2's evaluator; its ``output_dir``, where it has one, gets
            a folder for each named network.

    Returns:
        Results by task, e.g. ``{"bbox": {"AP": ...}}``, or ``{"student/bbox": ...}`` where the
        network has a name; empty in all processes but the first.
    """
    results: dict[str, Any] = {}
    for name, network in evaluated_networks(model).items():
        node = evaluator
        if name and evaluator.get("output_dir"):
            node = copy.deepcopy(evaluator)
            node.output_dir = os.path.join(evaluator.output_dir, name)
        for task, metrics in inference_on_dataset(network, loader, instantiate(node)).items():
            results[f"{name}/{task}" if name else task] = metrics
    print_csv_format(results)
    return results
