"""Measures the speed of this project and of its references in one run.

    python tools/benchmark.py MODE [--json FILE]

MODE is assignment, step, inference, evaluation, export, loader or scaling.

The last lines are the targets; the exit status is 1 when one is missed. Figures are in
docs/performance.md.
"""

import argparse
import sys
from pathlib import Path

import torch

from benchmarks import assignment, evaluation, export, inference, loader, scaling, step
from benchmarks.measure import Report

MODES = {
    "assignment": assignment,
    "step": step,
    "inference": inference,
    "evaluation": evaluation,
    "export": export,
    "loader": loader,
    "scaling": scaling,
}


def main() -> int:
    """Runs one benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmark.py", description=__doc__.splitlines()[0])
    modes = parser.add_subparsers(dest="mode", required=True)
    for name, module in MODES.items():
        mode = modes.add_parser(name, help=module.__doc__, description=module.__doc__)
        mode.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
        mode.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
        mode.add_argument("--threads", type=int, default=2, help="CPU threads")
        mode.add_argument("--repeats", type=int, help="timed calls of each variant")
        module.add_arguments(mode)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU here")
    torch.set_num_threads(args.threads)
    report = Report(args.mode)
    MODES[args.mode].run(args, report)
    return report.finish(args.json)


if __name__ == "__main__":
    sys.exit(main())
