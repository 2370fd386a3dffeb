"""Reading of the metrics.json that a run writes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path


def read_metrics(path: str | Path) -> list[dict]:
    """Reads a run's metrics.json: one dict per line, without lines that a kill has cut off.

    null, which stands for nan in JSON, becomes nan.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    rows = []
    for line in Path(path).read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows.append({k: math.nan if v is None else v for k, v in row.items()})
    return rows


def series(rows: Sequence[Mapping], key: str) -> tuple[list[int], list[float]]:
    """Returns iterations and values of one metric; the last row of an iteration counts."""
    found = {row["iteration"]: row[key] for row in rows if key in row and "iteration" in row}
    return sorted(found), [found[iteration] for iteration in sorted(found)]
