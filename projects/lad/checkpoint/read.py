"""Reading of checkpoint files."""

from __future__ import annotations

import codecs
import logging
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from lad.checkpoint.write import damage

logger = logging.getLogger(__name__)


def read_weights(path: str, *, trusted: bool = False) -> dict[str, Tensor]:
    """Reads the weights in a file as a flat dict of tensors on the CPU.

    Averaged weights (EMA), which are those that were evaluated, replace the weights themselves.

    Args:
        path: ``.pkl`` (Detectron2's model zoo: a pickle of NumPy arrays), else torch.save's.
        trusted: unpickle any object, which lets the file run code: only for files you trust.

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
        found = re.search(r"GLOBAL (\S+)|(\S+) is not allowed", str(error))
        what = f" ({found[1] or found[2]})" if found else ""
        raise ValueError(
            f"the file holds more than tensors, arrays and numbers{what}, or is damaged; such "
            "files can run code and are not read: docs/checkpoints.md"
        ) from error
    except PermissionError:
        raise
    except Exception as error:  # a damaged file can raise anything, OSError too
        raise ValueError("the file is no checkpoint, or is damaged; use another") from error
    if not trusted and (problem := damage(path)):
        raise ValueError(f"the file is damaged: {problem}; use another")
    weights = _weights(content)
    if not weights:
        raise ValueError("the file holds no weights")
    return weights


def network_weights(weights: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """Returns the weights of one network of a file of two, without its prefix.

    Args:
        weights: of `read_weights`.
        network: "student" or "teacher".

    Raises:
        ValueError: if they do not hold that network.
    """
    prefix = f"{network}."
    part = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    if not part:
        names = sorted({key.split(".")[0] for key in weights})
        raise ValueError(f"it has no {network}: its weights are those of {', '.join(names[:5])}")
    return part


def read_training(path: str) -> dict[str, Any]:
    """Reads a training's checkpoint; its tensors are mapped from the disk.

    Returns:
        ``model``, the weights by name; ``trainer``, its state with the last ``iteration``; and
        whatever else was saved.

    Raises:
        ValueError: if the file is no such checkpoint, or is damaged.
    """
    remedy = "name another checkpoint of the folder in its last_checkpoint"
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # a damaged file can raise anything, OSError too
        raise ValueError(f"{path} is no checkpoint, or is damaged: {remedy}") from error
    if not isinstance(content, dict) or not {"model", "trainer"} <= content.keys():
        raise ValueError(f"{path} holds weights, but not the state of a training: {remedy}")
    model, trainer = content["model"], content["trainer"]
    if not isinstance(model, Mapping) or not all(isinstance(x, Tensor) for x in model.values()):
        raise ValueError(f"{path}: its model is no dict of tensors: {remedy}")
    iteration = trainer.get("iteration") if isinstance(trainer, Mapping) else None
    if type(iteration) is not int or iteration < 0:
        raise ValueError(f"{path}: its trainer has no iteration: {remedy}")
    return content


def _weights(content: Any) -> dict[str, Tensor]:
    """Finds the weights in the content of a file."""
    if not isinstance(content, Mapping):
        return {}
    averages: Mapping = {}
    try:
        averages = content["trainer"]["hooks"]["EMAHook"]["model"]
        logger.info("The checkpoint's averaged weights (EMA) are used")
    except (KeyError, TypeError):
        pass
    for key in ("model", "state_dict", "blobs"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    content = {**content, **averages}
    weights = {
        str(key): torch.as_tensor(value)
        for key, value in content.items()
        if isinstance(value, Tensor | np.ndarray)
    }
    if weights and all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    # Caffe2 keeps the optimizer's momentum beside the weights.
    return {key: value for key, value in weights.items() if not key.endswith("_momentum")}


# What a pickle of NumPy arrays needs; NumPy's versions have these functions in different modules.
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
