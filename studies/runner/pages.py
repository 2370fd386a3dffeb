"""Tables in the documentation, between marks that name study and table.

<!-- study: digits_short summary -->
| method | ...
<!-- end of study -->

Names of methods behind the table leave out the others. Of digits_paper the LAD paper's tables can
be named too, such as table2; of digits_losses the matrix over the studies of distillation losses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from studies import digits_losses, digits_paper
from studies.matrix import matrix
from studies.runner.definition import Study
from studies.runner.tables import TABLES

MARK = re.compile(
    r"(?P<mark><!-- study: (?P<study>\S+) (?P<table>\S+)(?P<methods>( \S+)*) -->)\n"
    r"(?P<text>.*?)<!-- end of study -->",
    re.DOTALL,
)
IN_TABLE = re.compile(r"\(([+-]\d+\.\d) to ([+-]\d+\.\d)\)")
IN_TEXT = re.compile(r"\([^()]*?(-?\d+\.\d) to (-?\d+\.\d)[^()]*\)")


def refreshed(text: str, studies: Mapping[str, Study], root: Path) -> str:
    """Returns a page with its tables made anew from the stored runs.

    Raises:
        ValueError: if a mark names a study, a table or a method that does not exist.
    """
    return MARK.sub(lambda match: _refreshed(match, studies, root), text)


def unknown_intervals(pages: Mapping[Path, str]) -> Iterator[tuple[Path, str]]:
    """Yields the intervals in sentences that no table of the pages has, each with its page.

    "(0.7 to 4.8)" is that of a gain, +0.7 to +4.8, or of a loss, -4.8 to -0.7.
    """
    found = IN_TABLE.findall("".join(pages.values()))
    gains = {(float(low), float(high)) for low, high in found}
    known = gains | {(-high, -low) for low, high in gains}
    for page, text in pages.items():
        sentences = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
        for interval in IN_TEXT.finditer(sentences):
            if (float(interval[1]), float(interval[2])) not in known:
                yield page, interval[0]


def _refreshed(match: re.Match, studies: Mapping[str, Study], root: Path) -> str:
    name, table = match["study"], match["table"]
    tables: dict[str, Callable[[Study, Path], str]] = {**TABLES}
    if name == digits_paper.study.name:
        tables |= {key: _paper_table(rows) for key, rows in digits_paper.TABLES.items()}
    if name == digits_losses.study.name:
        tables["matrix"] = lambda _, folder: matrix(folder.parent)
    for kind, value, known in (("study", name, studies), ("table", table, tables)):
        if value not in known:
            raise ValueError(f"there is no {kind} {value!r}: choose from {', '.join(known)}")
    study = studies[name]
    if methods := match["methods"].split():
        chosen = (study.method(x) for x in methods)
        # What they start from may be left out.
        chosen = (replace(x, teacher="", student_init="") for x in chosen)
        study = replace(study, methods=tuple(chosen))
    text = tables[table](study, root / name)
    return f"{match['mark']}\n{text}\n<!-- end of study -->"


def _paper_table(rows: tuple[digits_paper.Row, ...]) -> Callable[[Study, Path], str]:
    return lambda _, folder: digits_paper.paper_table(rows, folder)
