"""Reading of the metrics.json that a run writes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lad.files import write_text


def read_metrics(path: str | Path) -> list[dict]:
    """Reads a run's metrics.json: one dict per line, without lines that a kill has cut off.

    null, which stands for nan in JSON, becomes nan.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    rows = [_row(line) for line in Path(path).read_text(errors="replace").splitlines()]
    return [{k: math.nan if v is None else v for k, v in row.items()} for row in rows if row]


def _row(line: str) -> dict | None:
    """Returns a line's metrics, None if it is cut off or holds none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and type(row.get("iteration")) is int else None


def cut_metrics(path: str | Path, start: int) -> None:
    """Removes the lines of a metrics.json that a run which starts at an iteration writes again.

    Those are the lines from that iteration on, of an earlier run that was killed or has gone
    further, and lines that a kill has cut off. Nothing is written if there are none.
    """
    path = Path(path)
    if not path.is_file():
        return
    text = path.read_text(errors="replace")
    rows = [(line, _row(line)) for line in text.splitlines()]
    kept = [line for line, row in rows if row is not None and row["iteration"] < start]
    cut = "".join(f"{line}\n" for line in kept)
    if cut != text:
        write_text(path, cut)


def series(rows: Sequence[Mapping], key: str) -> tuple[list[int], list[float]]:
    """Returns iterations and values of one metric; the last row of an iteration counts."""
    found = {row["iteration"]: row[key] for row in rows if key in row and "iteration" in row}
    return sorted(found), [found[iteration] for iteration in sorted(found)]
