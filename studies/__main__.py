"""Runs a study, or makes the tables and plots of the runs that are stored.

    python tools/study.py                              list the studies
    python tools/study.py digits_losses --workers 2    train what is missing, then print the tables
    python tools/study.py digits_losses paa paa_pkd --seeds 3 4
    python tools/study.py digits_losses --table        only the tables
    python tools/study.py digits_losses --cost         measure the CPU time of each method's losses
    python tools/study.py --update                     tables and plots in docs/
    python tools/study.py --check                      are they those of the stored runs?

Each run is stored as docs/results/STUDY/METHOD_seedN.json. A stored run is not repeated, nor one
that another study has stored with an equal config. An interrupted one is resumed if output/study is
kept. Rounding alone moves a short run's AP by some points: compare only runs of one machine.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from studies import STUDIES
from studies.runner import results
from studies.runner.costs import costs
from studies.runner.definition import Study
from studies.runner.jobs import Runner
from studies.runner.pages import refreshed, unknown_intervals
from studies.runner.plots import draw
from studies.runner.tables import TABLES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def main() -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="study.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", nargs="?", help=", ".join(STUDIES))
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="by default all")
    parser.add_argument("--seeds", type=int, nargs="+", help="by default those of the study")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument(
        "--data", type=Path, default=Path("datasets"), help="folder of the studies' data"
    )
    parser.add_argument("--results", type=Path, default=DOCS / "results", metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("output/study"), metavar="DIR")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--cost", action="store_true", help="measure CPU time: cost.json")
    parser.add_argument("--check", action="store_true", help="compare the tables in the docs")
    parser.add_argument("--update", action="store_true", help="write tables and plots in the docs")
    args = parser.parse_intermixed_args()
    try:
        if args.check or args.update:
            return refresh(args.results, write=args.update)
        if args.study is None:
            print("\n".join(f"{s.name:16} {s.question}, {s.data}" for s in STUDIES.values()))
            return 0
        if args.study not in STUDIES:
            parser.error(f"unknown study {args.study!r}: choose from {', '.join(STUDIES)}")
        print(report(STUDIES[args.study], args))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    return 0


def report(study: Study, args: argparse.Namespace) -> str:
    """Does what the command wants of a study; returns the tables."""
    methods = [study.method(name) for name in args.methods] or [*study.methods]
    runner = Runner(study, args.results / study.name, args.output, args.data)
    if args.cost:
        if study.data != "digits":
            raise ValueError(f"--cost: measured on digits only, and {study.name} has {study.data}")
        if args.methods:
            raise ValueError("--cost: measures all methods of a study; leave out their names")
        results.store(results.cost_path(runner.results), costs(runner, methods))
    elif not args.table:
        signal.signal(signal.SIGTERM, lambda *_: runner.terminate())
        runner.run_all([method.name for method in methods], args.seeds, args.workers)
    tables = (make(study, runner.results) for make in TABLES.values())
    return "\n\n".join(filter(None, tables))


def refresh(root: Path, *, write: bool) -> int:
    """Compares the pages' tables with the stored runs, or writes them; returns the exit status."""
    pages = {page: page.read_text() for page in PAGES}
    made = {page: refreshed(text, STUDIES, root) for page, text in pages.items()}
    changed = [page for page in PAGES if made[page] != pages[page]]
    old = ", ".join(str(page.relative_to(ROOT)) for page in changed)
    if write:
        for page in changed:
            page.write_text(made[page])
        text = "".join(made.values())
        for study in STUDIES.values():
            image = f"images/study_{study.name}.png"
            if image in text and any((root / study.name).glob("*_seed*.json")):
                draw(study, root / study.name, DOCS / image)
        print(f"written: {old or 'nothing new'}")
        return 0
    if old:
        print(f"study: other tables than those of the stored runs: {old}; run --update")
        return 1
    unknown = [*unknown_intervals(pages)]
    for page, interval in unknown:
        print(f"study: {page.relative_to(ROOT)}: no table has the interval {interval}")
    return int(bool(unknown))


if __name__ == "__main__":
    sys.exit(main())
