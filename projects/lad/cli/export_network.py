"""Writes one network of a two-network checkpoint as a plain PAA checkpoint.

    python tools/export_network.py output/digits/lad/model_final.pth --network student student.pth

The plain config (configs/digits/paa.py) then evaluates it with train.init_checkpoint=student.pth.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lad.checkpoint import export_network


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("output")
    parser.add_argument("--network", choices=("student", "teacher"), default="student")
    args = parser.parse_args(argv)
    if os.path.exists(args.output):
        parser.error(f"{args.output} exists: remove it or choose another name")
    try:
        count = export_network(args.checkpoint, args.network, args.output)
    except (OSError, RuntimeError, ValueError) as error:
        parser.error(f"{args.checkpoint}: {error}")
    print(f"{args.output}: {count} weights of the {args.network}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
