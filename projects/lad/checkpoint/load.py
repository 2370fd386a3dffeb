"""Loading of weights by path into a model, whatever wrote the file."""

from __future__ import annotations

import codecs
import logging
import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from torch import Tensor, nn

from lad.checkpoint.convert import (
    SWIN_BUFFERS,
    convert,
    from_mmdetection,
    is_mmdetection,
    is_resnet,
    resnet_key,
    teacher_part,
)

logger = logging.getLogger(__name__)

STEM = "stem.conv1.weight"  # every ResNet of Detectron2 has it
ANCHORS = "anchor_layout"  # PAA's record of strides and sizes
CLASSES = ("class_logits.weight", "class_logits.bias")  # K rows in PAA's head
# What a checkpoint may have or lack.
OPTIONAL = (ANCHORS, "num_batches_tracked", *SWIN_BUFFERS)


class LoadReport(NamedTuple):
    """What became of the weights of a checkpoint.

    Attributes:
        matched: names in the model that were loaded.
        missing: names in the model that the checkpoint does not have.
        unused: names in the checkpoint, by our naming, that the model does not have.
        mismatched: names that both have, in different shapes; not loaded.
    """

    matched: list[str]
    missing: list[str]
    unused: list[str]
    mismatched: list[str]


def load_initial_weights(model: nn.Module, path: str, *, resume_from: str = "") -> None:
    """Loads the weights that a training starts from.

    Args:
        model: may have an attribute ``checkpoints``: paths by the name of a child network.
        path: weights of the whole model, "" for none.
        resume_from: a checkpoint of the training that is loaded afterwards: only networks that it
            leaves out (a frozen teacher) are loaded.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a file is of no use, was made for another number of classes, or leaves a
            frozen network incomplete.
    """
    networks = getattr(model, "checkpoints", {})
    source = "train.init_checkpoint"
    incomplete = [key for key in _weights_of(model) if not key.endswith(OPTIONAL)]
    if resume_from:
        source, path = "--resume", resume_from
        saved = _training_weights(resume_from)
        incomplete = [key for key in incomplete if key not in saved]
    elif path:
        report = load_weights(model, path, source=source)
        incomplete = [*report.missing, *report.mismatched]
        if networks:
            _check_classes(report, f"{source}={path}")
    for name, network_path in networks.items():
        network = getattr(model, name)
        frozen = not any(p.requires_grad for p in network.parameters())
        lacking = [key for key in incomplete if key.startswith(f"{name}.")]
        key = f"model.{name}_checkpoint"
        if network_path and (lacking or not resume_from):
            report = load_weights(network, network_path, source=key, complete=frozen)
            _check_classes(report, f"{key}={network_path}")
        elif frozen and path and lacking:
            raise ValueError(
                f"{source}={path}: it lacks {len(lacking)} weights of the frozen {name} "
                f"({_some(lacking)}): set {key}"
            )
        elif frozen and not path:
            logger.warning(f"The frozen {name} has random weights: set {key}")


def _training_weights(path: str) -> Mapping[str, Tensor]:
    """Returns the weights in a checkpoint of a training.

    Raises:
        ValueError: if it is not one, or damaged.
    """
    mend = "name another checkpoint of the folder in its last_checkpoint"
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError, UnicodeError) as error:
        raise ValueError(f"--resume: {path} is no checkpoint, or is damaged: {mend}") from error
    if not isinstance(content, Mapping) or not {"model", "trainer"} <= content.keys():
        raise ValueError(f"--resume: {path} holds weights, but not the state of a training: {mend}")
    return content["model"]


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns a model's weights, those too that its checkpoints leave out."""
    weights = dict(model.state_dict())
    for name in getattr(model, "checkpoints", {}):
        part = getattr(model, name).state_dict()
        weights |= {f"{name}.{key}": value for key, value in part.items()}
    return weights


def _check_classes(report: LoadReport, where: str) -> None:
    """Raises ValueError where a detector was loaded that has other classes."""
    other = [key for key in report.mismatched if key.endswith(CLASSES)]
    if other:
        raise ValueError(
            f"{where}: it was trained with another number of classes ({_some(other)} has another "
            "shape): student and teacher need those of the data"
        )


def load_weights(
    model: nn.Module, path: str, *, source: str = "checkpoint", complete: bool | str = False
) -> LoadReport:
    """Loads the weights of a file into a model and logs what matched.

    Args:
        model: a detector or any other module; weights of a backbone alone go to its backbone.
        path: a file that `read_weights` reads.
        source: what the path is called in messages, e.g. its key in the config.
        complete: whether each of the model's weights has to be in the file; a name: each weight of
            that child network.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint, nothing in it fits, its anchors differ, or ``complete``
            is not met.
    """
    try:
        report = load_state(model, read_weights(path), complete=complete)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source}={path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{source}={path}: {error}") from error
    logger.info(f"{source}={path}: {len(report.matched)} weights loaded")
    for names, meaning in (
        (report.missing, "keep their initial values"),
        (report.unused, "of the file are not used"),
        (report.mismatched, "have another shape in the file and are not loaded"),
    ):
        if names:
            logger.warning(f"{path}: {len(names)} weights {meaning}: {_some(names)}")
    return report


def read_weights(path: str, *, trusted: bool = False) -> dict[str, Tensor]:
    """Reads the weights in a file as a flat dict of tensors on the CPU.

    Of a checkpoint that holds averaged weights (EMA) these are returned, as they are what was
    evaluated.

    Args:
        path: ``.pkl`` (Detectron2's model zoo: a pickle of NumPy arrays), else torch.save's.
        trusted: also unpickle other objects than tensors, arrays and plain containers, which lets
            the file run code: only for files whose origin is known.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds no weights.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError("there is no such file")
    try:
        if path.endswith(".pkl"):
            with open(path, "rb") as file:
                content = _read_pickle(file, trusted)
        else:
            content = torch.load(path, map_location="cpu", weights_only=not trusted)
    except pickle.UnpicklingError as error:
        raise ValueError(
            "the file holds more than tensors, arrays and numbers, or is damaged; if you trust it, "
            f"tools/convert_checkpoint.py --unsafe reads it: {str(error).splitlines()[0]}"
        ) from error
    except (RuntimeError, EOFError, KeyError, UnicodeError) as error:
        raise ValueError("the file is no checkpoint, or is damaged") from error
    weights = _weights(content)
    if not weights:
        raise ValueError("the file holds no weights")
    return weights


def load_state(
    model: nn.Module, state: Mapping[str, Tensor], *, complete: bool | str = False
) -> LoadReport:
    """Loads a dict of tensors into a model; weights of another shape or name are left out.

    Args:
        model: the model.
        state: in our names, MMDetection's (two networks go to a two-network model, of which else
            only the first is taken), or those of a backbone alone: torchvision's or Detectron2's
            ResNets, a timm model or Swin. These go to the model's only backbone of the kind.
        complete: whether each of the model's weights has to be there, or each of one child network.

    Raises:
        ValueError: if nothing fits, the anchors differ, or ``complete`` is not met.
    """
    ours = _weights_of(model)
    state, unused = _rename(state, model, ours)
    unused = [key for key in [*unused, *state] if key not in ours and not key.endswith(OPTIONAL)]
    fitting = {k: v for k, v in state.items() if k in ours and v.shape == ours[k].shape}
    mismatched = [k for k in state if k in ours and k not in fitting]
    missing = [k for k in ours if k not in state and not k.endswith(OPTIONAL)]
    _check_anchors(ours, state)
    if not fitting:
        raise ValueError(
            f"none of its weights fits the model: it has {_some([*state, *unused])}, the model "
            f"{_some(list(ours))}"
        )
    needed = f"{complete}." if isinstance(complete, str) else ""
    lacking = [key for key in missing if key.startswith(needed)]
    names = lacking or [key for key in mismatched if key.startswith(needed)]
    if complete and names:
        problem = "lacks" if lacking else "has other shapes (other classes or widths?) of"
        raise ValueError(f"it {problem} {len(names)} of the model's weights: {_some(names)}")
    model.load_state_dict(fitting, strict=False)
    return LoadReport(list(fitting), missing, unused, mismatched)


def _rename(
    state: Mapping[str, Tensor], model: nn.Module, ours: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the state in the model's names, and the keys that have no counterpart there."""
    if is_mmdetection(state):
        if teacher_part(state) and any(key.startswith("student.") for key in ours):
            return convert(state)[1:]
        return from_mmdetection(state)
    names: dict[str, str | None] = {key: key for key in state}
    if timm_names := _timm_names(state, model):
        names = timm_names
    elif is_resnet(state):
        names = {key: resnet_key(key) for key in state}
    elif "conv1_w" in state:
        # Caffe2's ResNets, as MSRA's: trained on BGR of unit scale, stride in the 1x1 convolution.
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


def _timm_names(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, str | None]:
    """Returns the names that the model's only `TimmBackbone` has for a timm model's weights."""
    found = {}
    for path, module in model.named_modules():
        if hasattr(module, "pretrained_names") and (names := module.pretrained_names(state)):
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


def _check_anchors(ours: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    for key in ours:
        if key.endswith(ANCHORS) and key in state:
            # As lists: the numbers of levels may differ.
            theirs, expected = state[key].tolist(), ours[key].tolist()
            if theirs != expected:
                raise ValueError(
                    f"it was trained with other anchors: [stride, size] per level {theirs}, the "
                    f"model has {expected}"
                )


def _weights(content: Any) -> dict[str, Tensor]:
    """Finds the weights in the content of a file."""
    if not isinstance(content, Mapping):
        return {}
    try:
        content = content["trainer"]["hooks"]["EMAHook"]
        logger.info("The checkpoint's averaged weights (EMA) are used")
    except (KeyError, TypeError):
        pass
    for key in ("model", "state_dict", "blobs"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    weights = {
        str(key): torch.as_tensor(value)
        for key, value in content.items()
        if isinstance(value, Tensor | np.ndarray)
    }
    if weights and all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    # Caffe2 keeps the optimizer's momentum beside the weights.
    return {key: value for key, value in weights.items() if not key.endswith("_momentum")}


# What a pickle of NumPy arrays names. Functions as NumPy itself gives them: their module has moved.
_ALLOWED = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "scalar": np.float32(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "OrderedDict": OrderedDict,
    "encode": codecs.encode,
}
_MODULES = {
    "numpy",
    "numpy.core.multiarray",
    "numpy._core.multiarray",
    "collections",
    "_codecs",
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, strings and NumPy arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _ALLOWED:
            return _ALLOWED[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def _read_pickle(file: IO[bytes], trusted: bool) -> Any:
    # Latin-1 reads the arrays that Python 2 pickled, as those of Detectron2's model zoo.
    unpickler = pickle.Unpickler if trusted else _ArrayUnpickler
    return unpickler(file, encoding="latin1").load()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
