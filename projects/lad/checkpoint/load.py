"""Loading of weights into a model, from files of every origin."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from torch import Tensor, nn

from lad.checkpoint.classes import is_class_layer, select_classes
from lad.checkpoint.convert import (
    BUFFERS,
    convert,
    from_mmdetection,
    is_mmdetection,
    is_resnet,
    resnet_key,
    teacher_part,
)
from lad.checkpoint.read import network_weights, read_training, read_weights
from lad.modeling.classes import ClassMap
from lad.modeling.distillation import NETWORKS
from lad.modeling.network import is_frozen, model_info

logger = logging.getLogger(__name__)

STEM = "stem.conv1.weight"  # every ResNet of Detectron2 has it
ANCHORS = "anchor_layout"  # OneStageDetector's strides and sizes
# `ModelInfo.checkpoints` of a frozen network that is to have random weights.
RANDOM = "random"
# Checkpoints may have or lack these.
OPTIONAL = (ANCHORS, "num_batches_tracked", *BUFFERS)


@runtime_checkable
class PretrainedBackbone(Protocol):
    """A backbone whose names differ from those in files of pre-trained weights."""

    def pretrained_names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Returns the backbone's names by the file's keys; empty for files of another kind."""


class LoadReport(NamedTuple):
    """Names of weights by what loading did with them.

    Attributes:
        matched: loaded.
        missing: in the model only.
        unused: in the checkpoint only.
        mismatched: in both with different shapes; not loaded.
        new_classes: those of them that belong to the class layer, if the file has other classes.
    """

    matched: list[str]
    missing: list[str]
    unused: list[str]
    mismatched: list[str]
    new_classes: list[str]


def load_initial_weights(model: nn.Module, path: str, *, resume_from: str = "") -> None:
    """Loads the weights that a training starts from.

    Args:
        model: its networks may have their own checkpoints (`ModelInfo.checkpoints`).
        path: weights of the whole model, "" for none.
        resume_from: the training's checkpoint that the caller loads afterwards: only networks that
            it leaves out (a frozen teacher) are loaded here.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if nothing in a file fits, or a frozen network stays incomplete or random.
    """
    info = model_info(model)
    source = "train.init_checkpoint"
    new_classes: set[str] = set()
    incomplete = [key for key in _weights_of(model) if not key.endswith(OPTIONAL)]
    if resume_from:
        source, path = "--resume", resume_from
        saved = read_training(resume_from)["model"]
        incomplete = [key for key in incomplete if key not in saved]
    elif path:
        report = load_weights(model, path, source=source)
        new_classes = set(report.new_classes)
        incomplete = [*report.missing, *report.mismatched, *new_classes]
    for name, network_path in info.checkpoints.items():
        network = info.networks[name]
        frozen = is_frozen(network)
        lacking = [key for key in incomplete if key.startswith(f"{name}.")]
        key = f"model.{name}_checkpoint"
        if network_path not in ("", RANDOM) and (lacking or not resume_from):
            class_map = info.class_maps.get(name)
            load_weights(network, network_path, source=key, complete=frozen, class_map=class_map)
        elif frozen and path and set(lacking) & new_classes:
            raise ValueError(
                f"{source}={path}: its {name} has another number of classes than the model: set "
                f"{key} to the {name}'s own file, and model.{name}_classes"
            )
        elif frozen and path and lacking:
            raise ValueError(
                f"{source}={path}: it lacks {len(lacking)} weights of the frozen {name} "
                f"({_some(lacking)}): set {key}"
            )
        elif frozen and not path and network_path != RANDOM:
            raise ValueError(
                f"{key} is missing: the frozen {name} would have random weights; name a file, or "
                f"set {key}={RANDOM} if you mean it"
            )
        elif frozen and not path:
            logger.warning(f"{key}={RANDOM}: the frozen {name} has random weights")


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns a model's weights, including those that its checkpoints leave out."""
    weights = dict(model.state_dict())
    for name, network in model_info(model).networks.items():
        prefix = f"{name}." if name else ""
        weights |= {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    return weights


def load_weights(
    model: nn.Module,
    path: str,
    *,
    source: str = "checkpoint",
    complete: bool | Collection[str] = False,
    network: str | None = None,
    class_map: ClassMap | None = None,
) -> LoadReport:
    """Loads the weights of a file into a model and logs what matched.

    Args:
        model: a detector or any other module; weights of a backbone alone go to its backbone.
        path: a file that `read_weights` reads.
        source: name of the path in messages, e.g. its key in the config.
        complete: whether the file has to hold all weights of the model, or of the named networks.
        network: which network of a file of two the model is, "student" or "teacher"; files of one
            network are loaded as they are.
        class_map: from the file's classes to the model's; None if they are the same.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint, nothing in it fits, its anchors or classes differ, or
            ``complete`` is not met.
    """
    try:
        weights = read_weights(path)
        if network is not None:
            weights = _one_network(weights, network)
        report = load_state(model, weights, complete=complete, class_map=class_map)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source}={path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{source}={path}: {error}") from error
    logger.info(f"{source}={path}: {len(report.matched)} weights loaded")
    for names, meaning in (
        (report.missing, "keep their initial values"),
        (report.unused, "of the file are not used"),
        (report.mismatched, "have another shape in the file and are not loaded"),
        (report.new_classes, "are new, since the file has other classes"),
    ):
        if names:
            logger.warning(f"{path}: {len(names)} weights {meaning}: {_some(names)}")
    return report


def _one_network(weights: dict[str, Tensor], network: str) -> dict[str, Tensor]:
    """Returns the weights of a network, or all of them if they are of one network only."""
    if is_mmdetection(weights) and teacher_part(weights):
        weights = convert(weights).weights
    return network_weights(weights, network) if _has_networks(weights) else weights


def _has_networks(keys: Iterable[str]) -> bool:
    return any(key.startswith(tuple(f"{name}." for name in NETWORKS)) for key in keys)


def load_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    complete: bool | Collection[str] = False,
    class_map: ClassMap | None = None,
) -> LoadReport:
    """Loads a dict of tensors into a model; weights of another shape or name are left out.

    Args:
        model: as for `load_weights`.
        state: in our names, MMDetection's (of two networks, a plain model takes the first), or
            those of a backbone alone: torchvision's or Detectron2's ResNets, a timm model or Swin.
            A backbone's weights go to the model's only backbone of the kind.
        complete: as for `load_weights`.
        class_map: as for `load_weights`.

    Raises:
        ValueError: if nothing fits, anchors or classes differ, or ``complete`` is not met.
    """
    ours = _weights_of(model)
    state, unused = _rename(state, model, ours)
    if class_map is not None:
        state = select_classes(state, class_map)
    unused = [key for key in [*unused, *state] if key not in ours and not key.endswith(OPTIONAL)]
    fitting = {k: v for k, v in state.items() if k in ours and v.shape == ours[k].shape}
    mismatched = [k for k in state if k in ours and k not in fitting]
    new_classes = [k for k in mismatched if is_class_layer(k, state[k], ours[k])]
    missing = [k for k in ours if k not in state and not k.endswith(OPTIONAL)]
    check_anchors(ours, state)
    if not fitting:
        raise ValueError(
            f"none of its weights fits the model: it has {_some([*state, *unused])}, the model "
            f"{_some(list(ours))}{_remedy(state, ours)}"
        )
    _check_complete(complete, missing, mismatched, new_classes)
    model.load_state_dict(fitting, strict=False)
    mismatched = [key for key in mismatched if key not in new_classes]
    return LoadReport(list(fitting), missing, unused, mismatched, new_classes)


def _remedy(state: Collection[str], ours: Collection[str]) -> str:
    """Returns what to do with a file of two networks for a model of one, and the reverse."""
    if _has_networks(state) and not _has_networks(ours):
        return "; tools/export_network.py makes a checkpoint of one of its networks"
    for name in NETWORKS:
        if any(f"{name}.{key}" in ours for key in state):
            return (
                "; it holds one network: name it in model.student_checkpoint or "
                "model.teacher_checkpoint, or evaluate it with a config of that network alone"
            )
    return ""


def _check_complete(
    complete: bool | Collection[str],
    missing: list[str],
    mismatched: list[str],
    new_classes: list[str],
) -> None:
    """Raises ValueError if required weights are missing or have other shapes."""
    networks = ([""] if complete else []) if isinstance(complete, bool) else complete
    needed = tuple(f"{name}." if name else "" for name in networks)
    lacking = [key for key in missing if key.startswith(needed)]
    names = lacking or [key for key in mismatched if key.startswith(needed)]
    if names and set(names) <= set(new_classes):
        raise ValueError(
            f"it has another number of classes than the model ({_some(names)}): set the model's "
            "num_classes, or for a frozen teacher model.teacher_classes (docs/distill_your_own.md)"
        )
    if names:
        problem = "lacks" if lacking else "has other shapes (other classes or widths?) of"
        raise ValueError(f"it {problem} {len(names)} of the model's weights: {_some(names)}")


def _rename(
    state: Mapping[str, Tensor], model: nn.Module, ours: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the state in the model's names, and the keys without a counterpart."""
    if is_mmdetection(state):
        if teacher_part(state) and any(key.startswith("student.") for key in ours):
            return convert(state)[1:]
        return from_mmdetection(state)
    names: dict[str, str | None] = {key: key for key in state}
    if backbone_names := _backbone_names(state, model):
        names = backbone_names
    elif is_resnet(state):
        names = {key: resnet_key(key) for key in state}
    elif "conv1_w" in state:
        # Caffe2's ResNets such as MSRA's.
        logger.warning("Caffe2 weights: they expect BGR images, pixel_std 1 and stride_in_1x1=True")
        names = dict(zip(state, convert_basic_c2_names(list(state)), strict=True))
    unused = [key for key, name in names.items() if name is None]
    renamed = {name: state[key] for key, name in names.items() if name is not None}
    if STEM in renamed and STEM not in ours:
        prefix = _only_resnet(ours)
        renamed = {prefix + name: value for name, value in renamed.items()}
    return renamed, unused


def _only_resnet(ours: Mapping[str, Tensor]) -> str:
    """Returns the prefix of the model's ResNet, "" if it has none."""
    return _only([key.removesuffix(STEM) for key in ours if key.endswith(f".{STEM}")])


def _backbone_names(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, str | None]:
    """Returns the weights' names in the model's only `PretrainedBackbone`."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, PretrainedBackbone) and (names := module.pretrained_names(state)):
            found[f"{path}." if path else ""] = names
    prefix = _only(list(found))
    return {key: name and prefix + name for key, name in found.get(prefix, {}).items()}


def _only(prefixes: list[str]) -> str:
    if len(prefixes) > 1:
        raise ValueError(
            f"it is a backbone, and the model has several ({', '.join(prefixes)}): give each "
            "network its own, e.g. model.student_checkpoint"
        )
    return prefixes[0] if prefixes else ""


def check_anchors(ours: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raises ValueError if weights were trained with other anchors than a model has."""
    for key in ours:
        if key.endswith(ANCHORS) and key in state:
            # As lists: the numbers of levels may differ.
            theirs, expected = state[key].tolist(), ours[key].tolist()
            if theirs != expected:
                raise ValueError(
                    f"it was trained with other anchors: [stride, size] per level {theirs}, the "
                    f"model has {expected}"
                )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
