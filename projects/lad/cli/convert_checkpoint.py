"""Converts a checkpoint of MMDetection, CoLAD's authors or torchvision to our names.

    python tools/convert_checkpoint.py paa_r50_fpn_1x_coco.pth weights/paa_r50_1x.pth

Configs can load such files unconverted, too. Of a file of two networks both are converted;
tools/export_network.py exports one of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lad.checkpoint import read_weights
from lad.checkpoint.convert import convert
from lad.checkpoint.write import write_checkpoint
from lad.engine.config import user_errors


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument(
        "--unsafe",
        action="store_true",
        help="unpickle any object, which lets the file run code: only for files you trust",
    )
    args = parser.parse_args(argv)
    if os.path.exists(args.output):
        parser.error(f"{args.output} exists: remove it or choose another name")
    with user_errors():
        try:
            conversion = convert(read_weights(args.input, trusted=args.unsafe))
            os.makedirs(os.path.dirname(args.output) or ".", exist_ok=True)
            write_checkpoint({"model": conversion.weights}, args.output)
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{args.input}: {error}") from error
    print(f"{args.input}: {conversion.origin}")
    print(f"{args.output}: {len(conversion.weights)} weights")
    if conversion.unused:
        print(f"not converted: {', '.join(conversion.unused)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
