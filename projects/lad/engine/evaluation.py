"""Evaluation of a model's networks."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from typing import Any

from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset, print_csv_format
from omegaconf import DictConfig
from torch import nn

from lad.modeling.network import model_info


def evaluate(model: nn.Module, loader: Iterable, evaluator: DictConfig) -> dict[str, Any]:
    """Evaluates the networks that `model_info` names; every process has to call it.

    Args:
        model: not wrapped in DistributedDataParallel.
        loader: test loader.
        evaluator: config node of Detectron2's evaluator; each network whose results have a prefix
            gets a folder in its ``output_dir``.

    Returns:
        Results by task, e.g. ``{"bbox": {"AP": ...}}``, or ``{"student/bbox": ...}`` with a prefix;
        empty in all processes but the first.
    """
    results: dict[str, Any] = {}
    info = model_info(model)
    for prefix, name in info.evaluated.items():
        node = evaluator
        if prefix and evaluator.get("output_dir"):
            node = copy.deepcopy(evaluator)
            node.output_dir = os.path.join(evaluator.output_dir, prefix)
        found = inference_on_dataset(info.networks[name], loader, instantiate(node))
        for task, metrics in found.items():
            results[f"{prefix}/{task}" if prefix else task] = metrics
    print_csv_format(results)
    return results
