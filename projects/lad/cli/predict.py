"""Detects objects in images and videos with a trained detector.

    python tools/predict.py output/digits/lad photo.jpg --output predictions
    python tools/predict.py output/digits/lad photos 'more/*.png' film.mp4 --json results.json
    python tools/predict.py configs/paa/r50_1x.py --weights paa.pth photo.jpg --csv results.csv

The first argument is the output folder of a training, or a config together with --weights. A file
that cannot be read is reported and left out, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from lad.engine.command_line import add_trust
from lad.engine.config import user_errors
from lad.files import write_text, written_aside
from lad.media import Input, Video, VideoWriter, find_inputs, read_image
from lad.predict import DEVICES, Detections, Predictor

COLUMNS = ("file_name", "frame", "class", "name", "score", "x0", "y0", "x1", "y1")


class Frame(NamedTuple):
    """An image, or a frame of a video with its number from 0 and the frames per second."""

    source: Input
    image: np.ndarray
    number: int | None = None
    rate: float = 0.0


class Annotations(NamedTuple):
    """The ids of a COCO annotation file: of images by file name, of categories by name."""

    path: str
    images: dict[str, int]
    categories: dict[str, int]

    @classmethod
    def read(cls, path: str) -> Annotations:
        """Reads a file; raises ValueError if it is none."""
        try:
            content = json.loads(Path(path).read_bytes())
            images = {image["file_name"]: image["id"] for image in content["images"]}
            categories = {category["name"]: category["id"] for category in content["categories"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"--annotations {path}: it has no images with file_name and id, or no categories; "
                "name a COCO annotation file"
            ) from error
        return cls(path, images, categories)

    def image_id(self, path: Path) -> int:
        """Returns the id of an image, whose path may have more folders than its file_name."""
        parts = path.resolve().parts
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if name in self.images:
                return self.images[name]
        raise ValueError(f"--annotations {self.path}: it has no image {path}; leave the image out")

    def category_ids(self, names: Sequence[str]) -> list[int]:
        """Returns the category ids by class number; unnamed classes are in the order of the ids."""
        if all(name in self.categories for name in names):
            return [self.categories[name] for name in names]
        unnamed = all(name == str(number) for number, name in enumerate(names))
        if unnamed and len(names) == len(self.categories):
            return sorted(self.categories.values())
        raise ValueError(
            f"--annotations {self.path}: its categories {', '.join(self.categories)} are not the "
            f"model's classes {', '.join(names)}; name the file of the model's dataset"
        )


class Results:
    """The rows of the JSON and CSV files.

    Args:
        category_ids: by class number.
        annotations: where the image ids come from; None numbers the images from 1.
    """

    def __init__(self, category_ids: Sequence[int], annotations: Annotations | None):
        self.category_ids = category_ids
        self.annotations = annotations
        self.num_images = 0
        self.coco: list[dict] = []
        self.rows: list[tuple] = []

    def add(self, frame: Frame, detections: Detections) -> None:
        """Adds the objects of an image."""
        self.num_images += 1
        path = frame.source.path
        if self.annotations is not None:
            image: dict[str, Any] = {"image_id": self.annotations.image_id(path)}
        else:
            image = {"image_id": self.num_images, "file_name": str(path)}
            if frame.number is not None:
                image["frame"] = frame.number
        self.coco += [image | found for found in detections.coco_results(self.category_ids)]
        columns = (detections.classes, detections.scores, detections.boxes)
        values = zip(detections.names, *(x.tolist() for x in columns), strict=True)
        for name, number, score, box in values:
            place = str(path), "" if frame.number is None else frame.number
            corners = [round(x, 2) for x in box]
            self.rows.append((*place, number, name, round(score, 4), *corners))

    def write(self, json_file: Path | None, csv_file: Path | None) -> None:
        """Writes the files that are named."""
        for path in filter(None, (json_file, csv_file)):
            path.parent.mkdir(parents=True, exist_ok=True)
        if json_file:
            write_text(json_file, json.dumps(self.coco))
        if csv_file:
            # A name of a file that is no UTF-8 keeps its bytes.
            errors = "surrogateescape"
            with (
                written_aside(csv_file) as part,
                open(part, "w", newline="", encoding="utf-8", errors=errors) as file,
            ):
                csv.writer(file).writerows([COLUMNS, *self.rows])


class Pictures:
    """Writes pictures, and the frames of a video as a video.

    Args:
        targets: files to write by the path of the input.
    """

    def __init__(self, targets: dict[Path, Path]):
        self.targets = targets
        self.video: VideoWriter | None = None

    def write(self, frame: Frame, picture: Image.Image) -> None:
        """Writes the picture of an image or frame; frames of a video come in their order."""
        target = self.targets[frame.source.path]
        target.parent.mkdir(parents=True, exist_ok=True)
        if frame.number is None:
            picture.save(target, quality=95)
            return
        if frame.number == 0:
            self.close()
            self.video = VideoWriter(target, frame.rate)
        assert self.video is not None
        self.video.write(np.asarray(picture))

    def close(self) -> None:
        """Completes the last video."""
        if self.video is not None:
            self.video.close()


def plan(args: argparse.Namespace, inputs: Sequence[Input]) -> dict[Path, Path]:
    """Returns the picture or video of each input by its path.

    Raises:
        ValueError: if nothing is to be written, or a file would be overwritten.
    """
    if not (args.output or args.json or args.csv):
        raise ValueError("nothing to write: add --output DIR, --json FILE or --csv FILE")
    targets: dict[Path, Path] = {}
    for source in inputs if args.output else ():
        png = source.path.suffix.lower() == ".png"
        suffix = ".mp4" if source.is_video else ".png" if png else ".jpg"
        target = args.output / source.name.with_suffix(suffix)
        if target in targets.values():
            raise ValueError(f"{source.path}: {target} is of another input too; use two folders")
        targets[source.path] = target
    read = {source.path.resolve() for source in inputs}
    for path in filter(None, (*targets.values(), args.json, args.csv)):
        if path.resolve() in read:
            raise ValueError(f"{path}: it is an input or another output; choose another output")
        read.add(path.resolve())
        if path.exists() and not args.overwrite:
            raise ValueError(f"{path} exists: choose another output, or add --overwrite")
    return targets


def read_frames(inputs: Sequence[Input], bar: tqdm, failed: list[Path]) -> Iterator[Frame]:
    """Yields images and frames; of files that cannot be read it writes a line and adds the path."""
    for source in inputs:
        try:
            opened = (Video if source.is_video else read_image)(source.path)
        except (ValueError, OSError) as error:
            bar.write(f"error: {error}", file=sys.stderr)
            failed.append(source.path)
            continue
        if not isinstance(opened, Video):
            yield Frame(source, opened)
            continue
        bar.total += opened.num_frames
        for number, image in enumerate(opened):
            yield Frame(source, image, number, opened.rate)


def predict(args: argparse.Namespace) -> int:
    """Detects, writes and returns the exit status."""
    inputs = find_inputs(args.inputs, leave_out=args.output)
    targets = plan(args, inputs)
    annotations = Annotations.read(args.annotations) if args.annotations else None
    if annotations:
        for source in inputs:
            annotations.image_id(source.path)
    options = ("weights", "network", "device", "threshold", "classes", "batch_size")
    chosen = {name: getattr(args, name) for name in options}
    predictor = Predictor.open(args.run, trusted=args.trust, **chosen)
    category_ids: Sequence[int]
    if annotations:
        category_ids = annotations.category_ids(predictor.names)
    else:
        category_ids = predictor.category_ids() if args.json else range(len(predictor.names))
    results, pictures = Results(category_ids, annotations), Pictures(targets)
    failed: list[Path] = []
    total = sum(not source.is_video for source in inputs)
    with tqdm(total=total, unit="image", dynamic_ncols=True) as bar:
        frames = read_frames(inputs, bar, failed)
        while chunk := list(islice(frames, args.batch_size)):
            found = predictor.stream(frame.image for frame in chunk)
            for frame, detections in zip(chunk, found, strict=True):
                results.add(frame, detections)
                if targets:
                    pictures.write(frame, predictor.draw(frame.image, detections))
                bar.update()
    pictures.close()
    results.write(args.json, args.csv)
    written = ", ".join(str(x) for x in (args.output, args.json, args.csv) if x)
    print(f"{len(results.rows)} objects in {results.num_images} images: {written}")
    if failed:
        print(f"{len(failed)} of {len(inputs)} files could not be read", file=sys.stderr)
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    lines = __doc__.splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[2:5]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN_OR_CONFIG", help="output folder, or .py or .yaml file")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder, glob or video")
    parser.add_argument("--weights", metavar="FILE", help="default: model_final.pth of the run")
    parser.add_argument("--network", help="student or teacher; default: the evaluated one")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for pictures and videos")
    parser.add_argument("--json", type=Path, metavar="FILE", help="results in COCO's format")
    parser.add_argument("--annotations", metavar="FILE", help="COCO file with the image ids")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a line per object")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score (default 0.5)")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="names or numbers to keep")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="(default 1)")
    parser.add_argument("--device", default="auto", help=f"auto (default), {', '.join(DEVICES)}")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    add_trust(parser)
    args = parser.parse_intermixed_args(argv)
    with user_errors():
        return predict(args)


if __name__ == "__main__":
    sys.exit(main())
