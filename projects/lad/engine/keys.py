"""Which keys a config may have: its own, and the parameters of its targets."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from detectron2.utils.registry import locate
from fvcore.common.checkpoint import PeriodicCheckpointer
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# Plain sections whose keys are arguments of these.
_ARGUMENTS = {
    "train.checkpointer": PeriodicCheckpointer.__init__,
    "train.ddp": DistributedDataParallel.__init__,
}
# Keys that other projects have, by the end of their name.
_MEANT = dict.fromkeys(("checkpoint", "weights", "load_from"), "train.init_checkpoint")


def unknown_keys(
    node: DictConfig | ListConfig, prefix: str = "", *, plain: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Yields the dotted keys that no target takes, and those that a plain section does not know.

    Args:
        node: a config or a part of it.
        prefix: dotted key of the node, "" for the whole config.
        plain: the known keys of plain sections, by the section's dotted key. A value that is a
            section itself has known keys, too.
    """
    plain = dict(plain or {})
    known = plain.get(prefix)
    names: set[str] | None = None
    if isinstance(node, DictConfig) and "_target_" in node:
        names = parameters(node)
    elif isinstance(known, Mapping):
        names = set(map(str, known))
        if prefix in _ARGUMENTS:
            names |= _keywords(_ARGUMENTS[prefix])[0]
    for name, child in _children(node):
        key = f"{prefix}.{name}" if prefix else name
        if names is not None and name not in names:
            yield key
        elif isinstance(child, DictConfig | ListConfig):
            if isinstance(known, Mapping):
                plain[key] = known.get(name)
            yield from unknown_keys(child, key, plain=plain)


def _children(node: DictConfig | ListConfig) -> Iterator[tuple[str, Any]]:
    """Yields the names and the raw values of a node, None for interpolations and null."""
    is_list = isinstance(node, ListConfig)
    for name in range(len(node)) if is_list else list(node):  # type: ignore[union-attr]
        if name != "_target_":
            child: Any = node._get_node(name)
            is_node = isinstance(child, DictConfig | ListConfig)
            empty = not is_node or child._is_interpolation() or child._is_none()
            yield str(name), None if empty else child


def is_read(config: DictConfig, key: str) -> bool:
    """Whether a value in a config refers to a key, as ``${train.period}`` or ``${..period}``."""
    name = re.escape(key.rpartition(".")[2])
    reference = re.compile(r"\$\{[^}]*[.{]" + name + "[.}]")

    def reads(value: Any) -> bool:
        if isinstance(value, str):
            return bool(reference.search(value))
        parts = value.values() if isinstance(value, dict) else value
        return isinstance(value, dict | list) and any(map(reads, parts))

    return reads(OmegaConf.to_container(config, resolve=False))


def parameters(node: Any) -> set[str] | None:
    """Returns the parameters of a node's target; None if it takes any keyword, or is not found."""
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if target is None:
        return set()
    try:
        if isinstance(target, str):
            target = locate(target)
        return _parameters_of_class(target) if inspect.isclass(target) else _own(target)
    except Exception:  # whatever an import raises; building the node reports it
        return None


def _own(function: Callable) -> set[str] | None:
    names, takes_any = _keywords(function)
    return None if takes_any else names


def _parameters_of_class(target: type) -> set[str] | None:
    names: set[str] = set()
    takes_any = False
    for base in target.__mro__:
        # **keywords go on to the next class, but nn.Module takes none.
        if base in (nn.Module, object):
            return None if takes_any else names
        # Named tuples have no __init__.
        maker = vars(base).get("__init__") or vars(base).get("__new__")
        if maker is not None:
            own, takes_any = _keywords(maker)
            names |= own - {"self", "cls", "_cls"}
            if not takes_any:
                return names
    return names


def _keywords(function: Callable) -> tuple[set[str], bool]:
    parameters = inspect.signature(function).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


def unknown_key(config: DictConfig, key: str, further: Iterable[str] = ()) -> ValueError:
    """Returns the error about an unknown key, with the nearest of the known and further ones."""
    known = [name for name in (*known_keys(config), *further) if name != key]
    *parents, last = key.split(".")
    # Without its section, a key is most likely the one of that name.
    same_name = [] if parents else [name for name in known if name.endswith(f".{last}")]
    nearest = _MEANT.get(last.lower())
    if nearest is None:
        nearest = difflib.get_close_matches(key, same_name or known, n=1, cutoff=0)[0]
    return ValueError(f"unknown key {key}; the nearest known key is {nearest}")


def known_keys(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[str]:
    """Yields every dotted key of a config and every parameter of its targets."""
    if isinstance(node, DictConfig):
        names = {str(name) for name in node}
        yield from (prefix + name for name in sorted((parameters(node) or set()) - names))
    for name, child in _children(node):
        yield prefix + name
        if child is not None:
            yield from known_keys(child, f"{prefix}{name}.")
