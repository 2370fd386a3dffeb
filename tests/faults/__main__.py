"""Runs every case of a fault and counts how they ended.

    python tools/probe_faults.py [GROUP...] [--quick] [--only TEXT]

The groups are data, config, checkpoint, process and code. The exit status is 1 when a case was
silently wrong, ended in a traceback, or lost a run.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from faults.case import Outcome
from faults.cases import CASES, GROUPS


def main() -> int:
    """Runs the cases; returns the exit status."""
    parser = argparse.ArgumentParser(prog="probe_faults.py", description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--quick", action="store_true", help="only the cases that CI runs")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains this")
    args = parser.parse_args()
    if unknown := set(args.groups) - set(GROUPS):
        parser.error(f"unknown groups {sorted(unknown)}: choose from {', '.join(GROUPS)}")
    # A shell's background jobs ignore Ctrl-C, and what they start would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    counts: Counter[Outcome] = Counter()
    for case in CASES:
        if args.groups and case.group not in args.groups:
            continue
        if args.only not in case.name or (args.quick and not case.quick):
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome, details = case.outcome(Path(folder))
        counts[outcome] += 1
        print(f"{outcome.value:14}  {case.group:10}  {case.name}", flush=True)
        if details:
            print(details.rstrip())
    parts = [f"{counts[outcome]} {outcome.value}" for outcome in Outcome]
    print(f"faults: {counts.total()} cases, {', '.join(parts)}")
    return int(any(counts[outcome] for outcome in Outcome if not outcome.good))


if __name__ == "__main__":
    sys.exit(main())
