"""Comparing of a run's config.yaml with that of the same run resumed."""

from __future__ import annotations

from typing import Any

import yaml

_SHOWN = 8


def config_differences(old: str, new: str) -> str:
    """Returns in one line which values of two config.yaml differ, "" if none do.

    The output folder does not count.

    Args:
        old: text of the run's file so far.
        new: text of the file that replaces it.
    """
    try:
        before, after = (_flat(yaml.safe_load(text)) for text in (old, new))
    except yaml.YAMLError:
        return "the run's config.yaml so far cannot be read, to compare it"
    keys = [k for k in {**before, **after} if before.get(k) != after.get(k)]
    keys = [k for k in keys if k != "train.output_dir"]
    shown = [f"{k} {_short(before.get(k))} -> {_short(after.get(k))}" for k in keys[:_SHOWN]]
    more = f", and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    if not keys:
        return ""
    return f"the config differs from the run's so far, and now counts: {', '.join(shown)}{more}"


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix.removesuffix("."): node}
    return {k: x for key, value in node.items() for k, x in _flat(value, f"{prefix}{key}.").items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
