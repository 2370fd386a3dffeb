"""Compares this project with outputs of the official implementation.

    python tools/check_parity.py [DIR...] [--require FAMILY,...] [--mixture-random N [--seed S]]

Without folders it takes tests/data/official. Prints one line per quantity with
R = max|a - b| / max(max|b|, 1e-6). The exit status is 1 when an R exceeds 1e-4, when more than
0.1 % of the candidates have other labels or a required family is missing; 2 when there is nothing
to compare.
"""

import argparse
import sys
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch

from parity import dense, distillation, mixture, network
from parity.report import Report

OFFICIAL = Path(__file__).parents[1] / "data/official"
FAMILIES = {
    "gmm": mixture.compare_vectors,
    "net": network.compare,
    **dict.fromkeys(dense.FAMILIES, dense.compare),
    **dict.fromkeys(distillation.FAMILIES, distillation.compare),
}


def family_of(path: Path) -> str:
    """Returns the family that a fixture's file name says: s12_paa.npz is of family paa."""
    first, _, second = path.stem.partition("_")
    return first if first in FAMILIES else second


def is_intact(path: Path) -> bool:
    """Returns whether a .npz file can be read to its end."""
    try:
        with ZipFile(path) as file:
            return file.testzip() is None
    except BadZipFile:
        return False


def main() -> int:
    """Runs the comparisons; returns the exit status."""
    parser = argparse.ArgumentParser(prog="check_parity.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="DIR", help="(default: tests/data/official)"
    )
    parser.add_argument(
        "--require", default="", metavar="FAMILY,...", help="families that must pass"
    )
    parser.add_argument("--mixture-random", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quiet", action="store_true", help="print only the last line and failures"
    )
    args = parser.parse_args()
    required = {name for name in args.require.split(",") if name}
    if unknown := required - FAMILIES.keys():
        parser.error(f"unknown families {sorted(unknown)}: choose from {sorted(FAMILIES)}")
    torch.set_num_threads(1)
    report = Report(quiet=args.quiet)
    for folder in args.folders or ([] if args.mixture_random else [OFFICIAL]):
        if not folder.is_dir():
            parser.error(f"{folder}: there is no such folder")
        paths = sorted(folder.glob("*.npz"))
        if not paths:
            parser.error(f"{folder} holds no .npz fixtures")
        for path in paths:
            if (family := family_of(path)) in FAMILIES:
                if not is_intact(path):
                    parser.error(f"{path} is damaged, or no .npz file")
                report.begin(path.stem, family)
                try:
                    FAMILIES[family](path, report)
                except network.UnknownNetworkError as error:
                    parser.error(str(error))
    if args.mixture_random:
        report.begin(f"random{args.seed}", "gmm")
        mixture.compare_random(args.mixture_random, args.seed, report)
    if not report.quantities:
        folders = ", ".join(map(str, args.folders))
        parser.error(
            f"nothing was compared: no file of {folders} is named after a family, such as "
            "s12_paa.npz"
        )
    return report.finish(required)


if __name__ == "__main__":
    sys.exit(main())
