"""Loading of configs: checked overrides and one-line errors."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig, instantiate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lad.engine.keys import is_read, known_keys, parameters, unknown_key, unknown_keys
from lad.engine.targets import UnsafeConfig, check_targets, read_yaml, unsafe_values

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parents[1]
# In a wheel inside the package, in a checkout beside projects/.
CONFIGS = next(x for x in (_PACKAGE / "configs", _PACKAGE.parents[1] / "configs") if x.is_dir())
SECTIONS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
_DATALOADER = dict.fromkeys(("train", "test", "evaluator"))


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns ValueError and OSError, which report wrong input, into one line and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{os.path.basename(sys.argv[0])}: error: {error}\n")
        raise SystemExit(2) from error


def find_config(path: str) -> str:
    """Returns the path of a config: a file, or else one that the package ships.

    Args:
        path: relative to the working directory; or as `shipped_config`, from any folder.

    Raises:
        FileNotFoundError: if there is neither.
    """
    return path if os.path.isfile(path) else shipped_config(path)


def shipped_config(path: str) -> str:
    """Returns the path of a config such as "paa/r50_1x.py" or "configs/paa/r50_1x.py".

    Raises:
        FileNotFoundError: if the package has none of that name.
    """
    file = CONFIGS / path.removeprefix("configs/")
    if not file.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file, nor a config of that name in {CONFIGS}"
        )
    return str(file)


def get_config(path: str, *names: str) -> Any:
    """Returns a shipped config, for a config of one's own to build on.

    Args:
        path: such as "paa/r50_1x.py".
        names: return these of the file's values instead, which can be functions; a tuple if
            there are several.

    Raises:
        FileNotFoundError: if there is no such config.

    Example::

        from lad import get_config

        dataloader, lr_multiplier, model, optimizer, train = get_config(
            "paa/r50_1x.py", "dataloader", "lr_multiplier", "model", "optimizer", "train"
        )
        train.output_dir = "output/mine"
        lad = get_config("common/models/distillation.py", "lad")
    """
    found = LazyConfig.load(shipped_config(path), names or None)
    return found[0] if len(names) == 1 else found


def load_config(
    path: str,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    *,
    source: str = "--config-file",
    trusted: bool = False,
) -> DictConfig:
    """Loads a LazyConfig file and applies overrides.

    A .py file is code, and runs. A .yaml file and the overrides may name only the targets of
    `lad.engine.targets`.

    Args:
        path: a .py or .yaml file, see `find_config`.
        overrides: "path.key=value" each, in Hydra's grammar.
        settings: values by key, which the overrides may override.
        source: name of the path in messages.
        trusted: a .yaml file and the overrides may name any target, and so run any code.

    Raises:
        ValueError: if a section is missing, a key is not known, an override is wrong or a target
            is not allowed.
        FileNotFoundError: if there is no such file.
    """
    if not path:
        raise ValueError(f"{source} is missing: name one of configs/*/*.py")
    try:
        file = find_config(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source} {error}") from None
    plain = file.endswith((".yaml", ".yml")) and not trusted
    try:
        config = read_yaml(file) if plain else LazyConfig.load(file)
    except UnsafeConfig as error:
        raise ValueError(f"{source} {path}: {error}") from error
    except Exception as error:  # whatever the file's own code raises
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise ValueError(f"{source} {path}: it cannot be loaded: {reason}") from error
    if not isinstance(config, DictConfig) or config._is_none():
        raise ValueError(f"{source} {path}: it is empty, or no config; use a LazyConfig file")
    missing = [section for section in SECTIONS if section not in config]
    if missing:
        raise ValueError(f"{source} {path}: it defines no {', '.join(missing)}; add them")
    _check_keys(config, f"{source} {path}")
    for key, value in (settings or {}).items():
        OmegaConf.update(config, key, value)
    known = None if trusted else unsafe_values(config)
    for override in overrides:
        _apply_override(config, override, known)
    return config


def _check_keys(config: DictConfig, where: str) -> None:
    """Raises ValueError if a file has a key that nothing reads; sections of one's own are free."""
    train = LazyConfig.load(str(CONFIGS / "common/train.py")).train
    sections = OmegaConf.masked_copy(config, list(SECTIONS))
    for key in unknown_keys(sections, plain={"train": train, "dataloader": _DATALOADER}):
        error = unknown_key(sections, key, known_keys(train, "train."))
        if key.rpartition(".")[0] not in ("train", "dataloader"):
            raise ValueError(f"{where}: {error}")
        if not is_read(config, key):
            raise ValueError(f"{where}: {error}, and nothing reads it as ${{{key}}}")


def build(config: DictConfig, key: str) -> Any:
    """Instantiates the part of a config at ``key``, e.g. "dataloader.train", as `build_node`."""
    return build_node(OmegaConf.select(config, key), key)


def build_node(node: DictConfig, name: str) -> Any:
    """Instantiates a node with a ``_target_``.

    Raises:
        ValueError: naming the node, if a target does not exist or a value cannot work.
        OSError: if a file is missing.
    """
    try:
        return instantiate(node)
    except (ValueError, OSError):
        raise
    except Exception as error:  # whatever a target raises at a value that it cannot take
        logger.debug(f"{name} cannot be built", exc_info=True)
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise ValueError(f"{name} cannot be built from these values: {reason}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0]


def _apply_override(config: DictConfig, text: str, known: dict[str, str] | None) -> None:
    """Applies an override; ``known`` are the config's own `unsafe_values`, None to trust it."""
    if text.startswith("--"):
        raise ValueError(f"{text}: flags have to come before the path.key=value overrides")
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"override {text!r}: write path.key=value ({reason})") from error
    if override.is_delete():
        raise ValueError(f"override {text!r}: a key cannot be deleted; set it to null")
    if override.is_sweep_override():
        raise ValueError(f"override {text!r}: write several values as a list, [a,b]")
    key, value = override.key_or_group, override.value()
    if not key:
        raise ValueError(f"override {text!r}: write path.key=value")
    _check_override(config, key, value)
    try:
        if isinstance(value, Mapping) and "_target_" in value:
            # Another part, without the old one's keys.
            OmegaConf.update(config, key, value, merge=False)
        else:
            LazyConfig.apply_overrides(config, [text])
    except OmegaConfBaseException as error:
        raise ValueError(f"override {text!r}: {_first_line(error)}") from error
    if known is not None:
        try:
            check_targets(config, known)
        except UnsafeConfig as error:
            raise ValueError(f"override {error}") from error
    if isinstance(value, Mapping) and "_target_" in value:
        for wrong in unknown_keys(OmegaConf.select(config, key), key):
            raise unknown_key(config, wrong)


def _check_override(config: DictConfig, key: str, value: Any) -> None:
    """Raises ValueError unless the key exists or names a parameter, and the value can fit."""
    node: Any = config
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        if not _has(node, part):
            raise unknown_key(config, key)
        node = node[int(part)] if isinstance(node, ListConfig) else node[part]
        if not OmegaConf.is_config(node):
            above = ".".join(parents[: depth + 1])
            raise ValueError(f"override {key}={value}: {above} is a value, not a section")
    if not _has(node, last):
        accepted = parameters(node)
        if accepted is not None and last not in accepted:
            raise unknown_key(config, key)
        return
    if isinstance(node, ListConfig) or OmegaConf.is_missing(node, last):
        return
    _check_value(config, key, node[last], value)


# Keys whose value may be "auto".
AUTO = ("train.amp.enabled", "train.checkpointer.period")


def _check_value(config: DictConfig, key: str, old: Any, new: Any) -> None:
    if isinstance(new, Mapping) and isinstance(old, DictConfig) and "_target_" not in new:
        for name, value in new.items():
            _check_override(config, f"{key}.{name}", value)
    elif isinstance(old, DictConfig) and not _can_replace(key, old, new):
        raise ValueError(
            f"override {key}={new}: {key} is a section; set {key}.KEY, KEY one of "
            f"{', '.join(str(name) for name in old)}"
        )
    elif isinstance(old, int | float) and isinstance(new, str) and "${" not in new:
        if new == "auto" and key in AUTO:
            return
        raise ValueError(f"override {key}={new}: expected a value like {old}")


def _can_replace(key: str, old: DictConfig, new: Any) -> bool:
    """Whether a section can become a value: an interpolation, another part, or no part (null)."""
    if new is None:
        return "_target_" in old and key not in SECTIONS
    return isinstance(new, Mapping) or (isinstance(new, str) and "${" in new)


def _has(node: Any, part: str) -> bool:
    if isinstance(node, ListConfig):
        return part.isdecimal() and int(part) < len(node)
    return part in node
