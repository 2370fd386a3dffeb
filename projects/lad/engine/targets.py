"""Which code a config may name: parts of detectors, and what the user's own code has registered.

A config in Python is code and may name anything. A YAML file and the overrides on the command line
are data: their ``_target_`` are the classes of `PARTS`, the names in `TARGETS`, and those of
`register_target`. Nothing else is imported, let alone called.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import yaml
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig, ListConfig, OmegaConf

T = TypeVar("T", bound="Callable | str")

# Their own public classes compute with tensors; none reads a file that runs code.
PARTS = ("lad.assignment.", "lad.modeling.", "lad.ops.")
# What the shipped configs name besides, and the writers of lad.engine.writers.
TARGETS = frozenset(
    {
        "detectron2.data.DatasetMapper",
        "detectron2.data.build_detection_test_loader",
        "detectron2.data.transforms.AugmentationList",
        "detectron2.data.transforms.RandomApply",
        "detectron2.data.transforms.RandomCrop",
        "detectron2.data.transforms.RandomFlip",
        "detectron2.data.transforms.ResizeShortestEdge",
        "detectron2.layers.ShapeSpec",
        "detectron2.modeling.FPN",
        "detectron2.modeling.FastRCNNOutputLayers",
        "detectron2.modeling.StandardROIHeads",
        "detectron2.modeling.anchor_generator.DefaultAnchorGenerator",
        "detectron2.modeling.backbone.fpn.LastLevelMaxPool",
        "detectron2.modeling.backbone.fpn.LastLevelP6P7",
        "detectron2.modeling.box_regression.Box2BoxTransform",
        "detectron2.modeling.matcher.Matcher",
        "detectron2.modeling.meta_arch.fcos.FCOSHead",
        "detectron2.modeling.meta_arch.retinanet.RetinaNetHead",
        "detectron2.modeling.poolers.ROIPooler",
        "detectron2.modeling.proposal_generator.RPN",
        "detectron2.modeling.proposal_generator.StandardRPNHead",
        "detectron2.modeling.roi_heads.FastRCNNConvFCHead",
        "detectron2.modeling.roi_heads.MaskRCNNConvUpsampleHead",
        "detectron2.solver.WarmupParamScheduler",
        "detectron2.solver.get_default_optimizer_params",
        "fvcore.common.param_scheduler.CosineParamScheduler",
        "fvcore.common.param_scheduler.MultiStepParamScheduler",
        "lad.data.build_coco_evaluator",
        "lad.data.build_evaluation_loader",
        "lad.data.ImageMapper",
        "lad.data.build_train_loader",
        "lad.data.get_dataset_dicts",
        "lad.data.unlabeled_images",
        "lad.engine.optimizer.distillation_params",
        "lad.engine.role_switch.RoleSwitchHook",
        "lad.engine.schedule.FreezeBackbone",
        "lad.engine.writers.ClearMLWriter",
        "lad.engine.writers.MLflowWriter",
        "lad.engine.writers.WandbWriter",
        "lad.modeling.backbones.resnet.build_resnet",
        "lad.modeling.detectron2.group_norm",
        "torch.optim.AdamW",
        "torch.optim.SGD",
    }
)
MAX_VALUES = 100_000  # of a YAML file, whose aliases can stand for any number
_registered: set[str] = set()


class UnsafeConfig(ValueError):
    """A YAML file or an override names code that it may not run, or is no plain data."""


def register_target(target: T) -> T:
    """Allows YAML configs and overrides of this process to name a class or function.

    It can be a decorator. Saved configs of a Python config that names classes of its own need it,
    or the flag ``--trust``.

    Args:
        target: a class or function, or its dotted name.

    Returns:
        ``target``.
    """
    if isinstance(target, str):
        _registered.add(target)
    else:
        _registered.update(
            (f"{target.__module__}.{target.__qualname__}", _convert_target_to_string(target))
        )
    return target


def is_allowed(name: str) -> bool:
    """Whether a YAML config or an override may name a target."""
    return name in TARGETS or name in _registered or (name.startswith(PARTS) and _is_part(name))


def _is_part(name: str) -> bool:
    """Whether a name under `PARTS` is a public class that is defined there."""
    module, _, attribute = name.rpartition(".")
    if not re.fullmatch(r"[A-Za-z]\w*", attribute) or "._" in module:
        return False
    try:
        found = vars(importlib.import_module(module)).get(attribute)
    except ImportError:
        return False
    return inspect.isclass(found) and found.__module__.startswith(PARTS)


def unsafe_values(config: DictConfig | ListConfig) -> dict[str, str]:
    """Returns the values of a config that can run code, as text, by their dotted keys.

    These are targets that are not allowed, and interpolations that call a resolver of OmegaConf
    (``${oc.decode:...}`` makes sections, ``${oc.env:...}`` reads the environment).
    """
    plain = OmegaConf.to_container(config, resolve=False)
    return dict(_unsafe(plain, ""))


def _unsafe(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        children = [(str(name), child) for name, child in value.items()]
    elif isinstance(value, list):
        children = [(str(index), child) for index, child in enumerate(value)]
    else:
        if isinstance(value, str) and _calls_resolver(value):
            yield key, value
        return
    for name, child in children:
        below = f"{key}.{name}" if key else name
        if name != "_target_":
            yield from _unsafe(child, below)
        elif not (is_allowed(child) if isinstance(child, str) else callable(child)):
            yield below, str(child)


def _calls_resolver(text: str) -> bool:
    """Whether a text has an interpolation that is more than a reference to keys."""
    before = None
    while text != before:  # from the innermost outward
        before, text = text, re.sub(r"\$\{[^${}:]*\}", "", text)
    return "${" in text


def check_targets(config: DictConfig, known: dict[str, str] | None = None) -> None:
    """Checks that a config runs only code that it may name.

    Args:
        config: of a YAML file, or after an override.
        known: `unsafe_values` that are all right, because a Python config has them.

    Raises:
        UnsafeConfig: naming the first other one.
    """
    for key, value in unsafe_values(config).items():
        if (known or {}).get(key) != value:
            raise UnsafeConfig(_reason(key, value))


def _reason(key: str, value: str) -> str:
    value = value if len(value) < 80 else f"{value[:77]}..."
    if not key.endswith("_target_"):
        return f"{key}={value}: only references to other keys are allowed; write the value itself"
    top = value.partition(".")[0]
    if top in sys.stdlib_module_names or not re.fullmatch(r"[\w.]+", value):
        return f"{key}={value} is refused: it is no part of a detector, and could run any code"
    if top == "lad":
        nearest = difflib.get_close_matches(value, TARGETS, n=1)
        return (
            f"{key}={value} is refused: a YAML config or an override may name no such part of lad"
            + "".join(f"; the nearest is {name}" for name in nearest)
        )
    return (
        f"{key}={value} is refused: it is none of the parts that a YAML config or an override may "
        "name; if it is your own, add --trust or call lad.register_target (docs/security.md)"
    )


def read_yaml(path: str) -> DictConfig | ListConfig:
    """Reads a YAML config of plain data: no Python objects, and no targets but those allowed.

    Raises:
        UnsafeConfig: if it is no YAML, or holds anything else.
        OSError: if it cannot be opened.
    """
    with open(path, encoding="utf-8") as file:
        try:
            text = file.read()
            node = yaml.compose(text, yaml.SafeLoader)
            _check_size(node)
            content = yaml.safe_load(text)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise UnsafeConfig(_yaml_reason(error)) from error
    if not isinstance(content, dict | list):
        raise UnsafeConfig("it is empty, or no config; use a LazyConfig file")
    config = OmegaConf.create(content, flags={"allow_objects": True})
    if isinstance(config, DictConfig):
        check_targets(config)
    return config


def _check_size(root: yaml.Node | None) -> None:
    """Raises UnsafeConfig for aliases that stand for too many values, or for themselves."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, above: frozenset[int]) -> int:
        if id(node) in above:
            raise UnsafeConfig("it is refused: an alias stands for itself")
        if id(node) not in sizes:
            inside = above | {id(node)}
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            flat = [x for part in parts for x in (part if isinstance(part, tuple) else (part,))]
            sizes[id(node)] = 1 + sum(size(x, inside) for x in flat)
        return sizes[id(node)]

    if root is not None and size(root, frozenset()) > MAX_VALUES:
        raise UnsafeConfig(f"it is refused: its aliases stand for more than {MAX_VALUES} values")


def _yaml_reason(error: Exception) -> str:
    if isinstance(error, UnsafeConfig):
        return str(error)
    tag = re.search(r"tag:yaml\.org,2002:(python/[\w/:.]*)", str(error))
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark else ""
    if tag:
        return f"{line}it is refused: !!{tag[1]} is a Python object, which could run any code"
    problem = getattr(error, "problem", None) or type(error).__name__
    return f"{line}it is no YAML that can be read: {problem}"
