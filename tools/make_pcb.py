"""Makes circuit-board crops in COCO's layout from a checkout of DeepPCB.

    git clone https://github.com/tangsanli5201/DeepPCB
    python tools/make_pcb.py DeepPCB/PCBData datasets/pcb

Each tested board (640 px) gives the crop of 256 px, of a 3 x 3 grid, that holds most defects; a
defect belongs to the crops that its center is in. The first 1,000 boards of trainval.txt become
train, the first 250 of test.txt val.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
SIDE, STARTS = 256, (0, 192, 384)
SPLITS = {"train": ("trainval.txt", 1000), "val": ("test.txt", 250)}
Defect = tuple[int, int, int, int, int]  # x1, y1, x2, y2, class from 1


def boards(source: Path, listed: str) -> Iterator[tuple[Path, list[Defect]]]:
    """Yields image and defects of each board in a list.

    Raises:
        FileNotFoundError: if a file of the list does not exist.
        ValueError: if a line is not five numbers.
    """
    for line in (source / listed).read_text().splitlines():
        image, labels = line.split()
        path = source / image
        rows = (source / labels).read_text().split("\n")
        defects = []
        for row in filter(None, map(str.strip, rows)):
            numbers = row.replace(",", " ").split()
            if len(numbers) != 5 or not all(x.isdecimal() for x in numbers):
                raise ValueError(f"{source / labels}: {row!r} is not x1 y1 x2 y2 class")
            defects.append(tuple(map(int, numbers)))
        yield path.with_name(f"{path.stem}_test.jpg"), defects


def best_crop(defects: list[Defect]) -> tuple[int, int, list[Defect]]:
    """Returns left, top and defects, relative to it and clipped, of the crop with most of them."""
    crops = []
    for top in STARTS:
        for left in STARTS:
            inside = [
                (
                    max(x1 - left, 0),
                    max(y1 - top, 0),
                    min(x2 - left, SIDE),
                    min(y2 - top, SIDE),
                    kind,
                )
                for x1, y1, x2, y2, kind in defects
                if left <= (x1 + x2) / 2 < left + SIDE and top <= (y1 + y2) / 2 < top + SIDE
            ]
            crops.append((left, top, inside))
    return max(crops, key=lambda crop: len(crop[2]))


def make(source: Path, target: Path) -> dict[str, tuple[int, int]]:
    """Writes the crops; returns images and defects of each split.

    Raises:
        FileNotFoundError: if ``source`` is no PCBData folder.
        FileExistsError: if ``target`` exists.
    """
    for listed, _ in SPLITS.values():
        if not (source / listed).is_file():
            raise FileNotFoundError(f"{source} has no {listed}: give DeepPCB's folder PCBData")
    read = {split: [*boards(source, listed)] for split, (listed, _) in SPLITS.items()}
    target.mkdir(parents=True)
    (target / "annotations").mkdir()
    counts = {}
    for split, (_, number) in SPLITS.items():
        (target / split).mkdir()
        images, annotations = [], []
        for path, defects in read[split]:
            left, top, inside = best_crop(defects)
            if not inside or len(images) == number:
                continue
            name = f"{len(images) + 1:05}.jpg"
            with Image.open(path) as board:
                crop = board.crop((left, top, left + SIDE, top + SIDE))
                crop.save(target / split / name, quality=95)
            images.append({"id": len(images) + 1, "file_name": name, "width": SIDE, "height": SIDE})
            for x1, y1, x2, y2, kind in inside:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": kind,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (target / f"annotations/{split}.json").write_text(json.dumps(content))
        counts[split] = len(images), len(annotations)
    return counts


def main() -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the folder PCBData of a checkout of DeepPCB")
    parser.add_argument("target", type=Path, help="new folder")
    args = parser.parse_args()
    try:
        counts = make(args.source, args.target)
    except FileExistsError:
        print(f"make_pcb: {args.target} exists: name a new folder", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"make_pcb: {error}", file=sys.stderr)
        return 1
    for split, (images, defects) in counts.items():
        print(f"{split}: {images} crops, {defects} defects")
    return 0


if __name__ == "__main__":
    sys.exit(main())
