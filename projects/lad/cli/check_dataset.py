"""Checks a folder of labeled images before it is trained on with train_net.py --data.

    python tools/check_dataset.py FOLDER [--config-file configs/quick/paa.py]
    python tools/check_dataset.py FOLDER --html page.html
    python tools/check_dataset.py FOLDER --fix MENDED

Prints a page: images, objects and classes of each split, sizes of the boxes against the config's
anchors, boxes without area, photos that are in two splits. Then everything that training would
refuse, with file and entry; exit status 1 if there is any. --html writes the page with pictures,
--fix a mended copy of the data in COCO's layout, with exit status 0 if that can be trained on.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate

from lad.cli.check_page import write_page
from lad.data.check import Check, check_folder, count_classes, count_split
from lad.data.images import MAX_PIXELS
from lad.data.layouts import Layout
from lad.data.mend import check_output, write_mended
from lad.engine.box_sizes import BoxSizes
from lad.engine.command_line import add_trust
from lad.engine.config import load_config, user_errors
from lad.engine.data import data_settings
from lad.engine.fit import REACHED_IOU

MAX_LINES = 20  # of a list that is no list of problems
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
COUNTS = (
    *("images", "  without objects", "objects"),
    *("  out of the image (clipped)", "  without area (left out)"),
)


def class_table(layout: Layout) -> str:
    """Returns the number of objects of each class and split."""
    counts = count_classes(layout)
    rows = [[name, *(c[i] for c in counts.values())] for i, name in enumerate(layout.class_names)]
    return tabulate(rows, ["objects of class", *counts], disable_numparse=[0])


def size_table(by_split: Mapping[str, BoxSizes]) -> str:
    """Returns quantiles of the boxes' sides in the resized images, and what anchors reach."""
    rows = []
    for split, sizes in by_split.items():
        if len(sizes.boxes):
            shares = [f"{sizes.sides.quantile(q):.0f}" for q in QUANTILES]
            reached = "" if sizes.share is None else f"{sizes.share:.1%}"
            rows.append([split, *shares, reached])
    headers = ["side in pixels", *(f"{q:.0%}" for q in QUANTILES), f"IoU >= {REACHED_IOU}"]
    return tabulate(rows, headers)


def page(check: Check, layout: Layout, config: DictConfig) -> str:
    """Returns what is printed about data that can be read."""
    rows = zip(*(count_split(photos) for photos in layout.splits.values()), strict=True)
    counts = [[title, *row] for title, row in zip(COUNTS, rows, strict=True)]
    sizes = {split: BoxSizes.of(config, photos) for split, photos in layout.splits.items()}
    anchors = sizes["train"].anchors
    sides = f"Anchors of {', '.join(f'{x:g}' for x in anchors)} px" if anchors else ""
    parts = [
        f"{layout.name}: {len(layout.class_names)} classes",
        tabulate(counts, ["", *layout.splits]),
        class_table(layout),
        "\n".join(filter(None, [size_table(sizes), sides])),
        *listed("Warnings", check.warnings),
    ]
    for title, findings in check.findings.items():
        parts += listed(title, [finding.text for finding in findings], MAX_LINES)
    return "\n\n".join(parts)


def listed(title: str, lines: Sequence[str], most: int | None = None) -> list[str]:
    """Returns a list with its title, or nothing if it is empty; the rest is counted."""
    left = 0 if most is None else len(lines) - most
    more = [f"... and {left} more: --html FILE has all"] if left > 0 else []
    return ["\n  ".join([f"{title} ({len(lines)}):", *lines[:most], *more])] if lines else []


def run(args: argparse.Namespace) -> int:
    """Checks, writes and returns the exit status."""
    if args.fix:
        check_output(args.fix)
    if args.html and args.html.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--html {args.html}: name a file that ends in .html")
    if args.html and args.html.is_dir():
        raise ValueError(f"--html {args.html}: it is a folder: name a file")
    config = load_config(args.config_file, trusted=args.trust)
    limit = OmegaConf.select(config, "dataloader.train.mapper.max_pixels") or MAX_PIXELS
    check = check_folder(args.folder, limit)
    if check.layout is not None:
        # Image size and anchors as a training chooses them.
        settings = data_settings(config, check.layout, "data")
        config = load_config(args.config_file, (), settings, trusted=args.trust)
        print(page(check, check.layout, config), end="\n\n")
    print(*listed("What training refuses", check.problems) or ["No problem found."])
    if args.html:
        write_page(check, config, os.path.abspath(args.folder), args.html)
        print(f"\n{args.html}: the page with pictures")
    if args.fix:
        changes = write_mended(check, args.fix)
        print("", *listed("Mended", changes) or ["Nothing had to be mended."], sep="\n")
        print(f"\n{args.fix}: the mended copy, in COCO's layout")
    return 1 if check.problems and not args.fix else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--config-file", default="quick/paa.py", help="(default quick/paa.py)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page with pictures")
    parser.add_argument(
        "--fix", type=Path, metavar="OUT", help="write a mended copy to this new folder"
    )
    add_trust(parser)
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be no text
        sys.stdout.reconfigure(errors="backslashreplace")
    with user_errors():
        return run(args)


if __name__ == "__main__":
    sys.exit(main())
