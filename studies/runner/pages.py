"""Tables in the documentation, between marks that name study and table.

<!-- study: digits_short summary -->
| method | ...
<!-- end of study -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from studies.runner.definition import Study
from studies.runner.tables import TABLES

MARK = re.compile(
    r"<!-- study: (?P<study>\S+) (?P<table>\S+) -->\n(?P<text>.*?)<!-- end of study -->", re.DOTALL
)


def refreshed(text: str, studies: Mapping[str, Study], root: Path) -> str:
    """Returns a page with its tables made anew from the stored runs.

    Raises:
        ValueError: if a mark names a study or a table that does not exist.
    """
    return MARK.sub(lambda match: _refreshed(match, studies, root), text)


def _refreshed(match: re.Match, studies: Mapping[str, Study], root: Path) -> str:
    name, table = match["study"], match["table"]
    for kind, value, known in (("study", name, studies), ("table", table, TABLES)):
        if value not in known:
            raise ValueError(f"there is no {kind} {value!r}: choose from {', '.join(known)}")
    make: Callable[[Study, Path], str] = TABLES[table]
    text = make(studies[name], root / name)
    return f"<!-- study: {name} {table} -->\n{text}\n<!-- end of study -->"
