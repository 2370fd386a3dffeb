"""Checks a folder of labeled images before it is trained on with train_net.py --data.

    python tools/check_dataset.py FOLDER [--config-file configs/quick/paa.py]

Prints a page: images, objects and classes of each split, sizes of the boxes against the config's
anchors, photos that are in two splits. Then everything that training would refuse, with file and
entry; exit status 1 if there is any.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image
from tabulate import tabulate

from lad.data.folders import clip_box, read_folder, source_name
from lad.data.layouts import Layout, Photo
from lad.engine.config import load_config
from lad.engine.fit import REACHED_IOU, reachable_share, resized_boxes

MAX_LINES = 20  # of a list
ROUNDING = 1.0  # pixels by which a box may leave its image without being counted
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def damaged_images(photos: Iterable[Photo]) -> list[str]:
    """Returns a line for each image that has a readable header but cannot be decoded."""
    lines = []
    for photo in photos:
        try:
            with Image.open(photo.path) as image:
                image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            lines.append(f"{photo.path}: is damaged ({error}): replace or remove it")
    return lines


def leaves_image(box: Sequence[float], photo: Photo) -> bool:
    """Whether a box (x, y, width, height) is more than a rounding error outside its image."""
    x, y, width, height = box
    right, bottom = x + width - photo.width, y + height - photo.height
    return max(-x, -y, right, bottom) > ROUNDING


def count_split(photos: Sequence[Photo]) -> list[int]:
    """Returns the numbers of images, images without objects, objects, and two kinds of boxes.

    The last two are boxes that leave their image and boxes without area in it.
    """
    boxes = [(entry["bbox"], photo) for photo in photos for entry in photo.objects]
    return [
        len(photos),
        sum(not photo.objects for photo in photos),
        len(boxes),
        sum(leaves_image(box, photo) for box, photo in boxes),
        sum(clip_box(box, photo) is None for box, photo in boxes),
    ]


def class_table(layout: Layout) -> str:
    """Returns the number of objects of each class and split."""
    counts = {
        split: Counter(entry["category_id"] for photo in photos for entry in photo.objects)
        for split, photos in layout.splits.items()
    }
    rows = [[name, *(c[i] for c in counts.values())] for i, name in enumerate(layout.class_names)]
    return tabulate(rows, ["objects of class", *counts], disable_numparse=[0])


def size_table(layout: Layout, config: DictConfig) -> str:
    """Returns quantiles of the boxes' sides in the resized images, and what anchors reach."""
    rows = []
    for split, photos in layout.splits.items():
        boxes = resized_boxes(photos, config.dataloader.test.mapper.augmentations)
        if len(boxes):
            sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
            share = reachable_share(config, photos)
            reached = "" if share is None else f"{share:.1%}"
            rows.append([split, *(f"{sides.quantile(q):.0f}" for q in QUANTILES), reached])
    headers = ["side in pixels", *(f"{q:.0%}" for q in QUANTILES), f"IoU >= {REACHED_IOU}"]
    return tabulate(rows, headers)


def shared_photos(layout: Layout) -> list[str]:
    """Returns a line for each image of a split that is, or is a copy of, one of another split."""
    keys = {split: _photo_keys(photos) for split, photos in layout.splits.items()}
    lines = []
    for (first, ours), (second, theirs) in combinations(keys.items(), 2):
        found = {(ours[key], theirs[key]) for key in ours.keys() & theirs.keys()}
        lines += [f"{a} ({first}) is the photo of {b} ({second})" for a, b in sorted(found)]
    return lines


def _photo_keys(photos: Iterable[Photo]) -> dict[str, Path]:
    """Returns images by their content, and by the photo's name where Roboflow made copies."""
    keys: dict[str, Path] = {}
    for photo in photos:
        keys.setdefault(hashlib.sha256(photo.path.read_bytes()).hexdigest(), photo.path)
        name = source_name(photo.path.name)
        if name != photo.path.stem:
            keys.setdefault(f"copy of {name}", photo.path)
    return keys


def page(layout: Layout, config: DictConfig) -> str:
    """Returns what is printed about data that can be read."""
    rows = zip(*(count_split(photos) for photos in layout.splits.values()), strict=True)
    titles = (
        *("images", "  without objects", "objects"),
        *("  out of the image (clipped)", "  without area (left out)"),
    )
    counts = [[title, *row] for title, row in zip(titles, rows, strict=True)]
    return "\n\n".join(
        [
            f"{layout.name}: {len(layout.class_names)} classes",
            tabulate(counts, ["", *layout.splits]),
            class_table(layout),
            size_table(layout, config),
            *_listed(
                "Photos in two splits, which makes the evaluation too good", shared_photos(layout)
            ),
        ]
    )


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    """Returns a list with its title, or nothing if it is empty."""
    more = [f"... and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    head = f"{title} ({len(lines)}):"
    return ["\n  ".join([head, *lines[:MAX_LINES], *more])] if lines else []


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--config-file", default="quick/paa.py")
    args = parser.parse_args(argv)
    problems: list[str] = []
    try:
        config = load_config(args.config_file)
        layout = read_folder(args.folder, problems.append)
    except (ValueError, OSError) as error:
        problems.append(str(error))
    else:
        for photos in layout.splits.values():
            problems += damaged_images(photos)
        print(page(layout, config), end="\n\n")
    print(*_listed("What training refuses", problems) or ["No problem found."])
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
