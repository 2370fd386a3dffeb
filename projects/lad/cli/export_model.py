"""Exports a trained detector as ONNX or PyTorch program, and proves that the file does the same.

    python tools/export_model.py output/digits/lad --output student.onnx
    python tools/export_model.py output/digits/lad --size 128x128 --nms --output small.onnx
    python tools/export_model.py configs/paa/r50_1x.py --weights paa.pth --format pt2

The first argument is the output folder of a training, or a config together with --weights. A file
whose outputs differ from PyTorch's is removed, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog

from lad.data.scenes import load_sources, make_scene
from lad.engine.command_line import add_trust
from lad.engine.config import user_errors
from lad.export.describe import describe
from lad.export.metadata import Metadata
from lad.export.runtime import is_exported
from lad.export.write import DifferentOutputs, check_target, export_detector
from lad.media import read_image
from lad.predict import Predictor

IMAGES = 4  # compared


def parse_size(text: str) -> tuple[int, int]:
    """Returns the height and width of "320x512"."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 320x512")
    return int(found[1]), int(found[2])


def target(args: argparse.Namespace) -> Path:
    """Returns the file to write.

    Raises:
        ValueError: if its name and the format disagree.
    """
    output, suffix = args.output, f".{args.format or 'onnx'}"
    if output is None:
        folder = Path(args.run)
        return (folder if folder.is_dir() else Path()) / f"model{suffix}"
    if args.format and output.suffix != suffix:
        raise ValueError(
            f"--output {output}: with --format {args.format} it has to end in {suffix}"
        )
    return output


def comparison_images(dataset: str, metadata: Metadata) -> tuple[list[np.ndarray], str]:
    """Returns images to compare on, (H, W, 3) uint8 RGB, and what they are.

    If the file takes any size, they become inputs of two sizes at least.

    Args:
        dataset: of the test images; without them digit scenes are drawn.
        metadata: of the file.
    """
    images, name = _test_images(dataset), f"images of {dataset}"
    if not images:
        sources = load_sources("val")
        images = [
            make_scene(sources, "val", index, image_size=480, seed=0).image
            for index in range(IMAGES)
        ]
        name = "drawn digit scenes, because there are no test images"
    sizes = {metadata.padded(*metadata.resized(*x.shape[:2])) for x in images}
    if metadata.size is None and len(sizes) == 1:
        # Other proportions, and so another size after the image is resized.
        images[1:] = [*images[1:-1], np.concatenate([images[-1], images[-1]], axis=1)]
    return images, name


def _test_images(dataset: str) -> list[np.ndarray]:
    if dataset not in DatasetCatalog.list():
        return []
    images: list[np.ndarray] = []
    try:
        for record in DatasetCatalog.get(dataset)[:IMAGES]:
            images.append(read_image(record["file_name"]))
    except (OSError, ValueError):  # annotations or images that are not on this machine
        pass
    return images


def export(args: argparse.Namespace) -> int:
    """Exports and returns the exit status."""
    if is_exported(args.run):
        raise ValueError(
            f"{args.run}: it is exported already; name the output folder of a training"
        )
    path = target(args)
    check_target(path)
    options = {"weights": args.weights, "network": args.network, "trusted": args.trust}
    predictor = Predictor.open(args.run, device="cpu", **options)
    metadata = describe(
        predictor.model,
        predictor.mapper,
        class_names=predictor.names,
        category_ids=predictor.known_category_ids(),
        size=args.size,
        nms=args.nms,
    )
    if args.nms and predictor.model.nms_settings.score_voting:
        print("--nms: the file has no score voting, which moves boxes after NMS; AP may be lower")
    images, name = comparison_images(predictor.dataset, metadata)
    try:
        found = export_detector(predictor.model, path, metadata, images)
    except DifferentOutputs as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 1
    sizes = ", ".join(sorted({f"{height}x{width}" for height, width in found.sizes}))
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, weights of {predictor.weights}")
    print(
        f"equal to PyTorch on {len(found.sizes)} {name}, inputs of {sizes}: {found.boxes} boxes, "
        f"{found.detections} detections"
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    lines = str(__doc__).splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[2:5]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN_OR_CONFIG", help="output folder, or .py or .yaml file")
    parser.add_argument("--weights", metavar="FILE", help="default: model_final.pth of the run")
    parser.add_argument("--network", help="student or teacher; default: the evaluated one")
    parser.add_argument("--format", choices=("onnx", "pt2"), help="default: by --output, or onnx")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: model.onnx or .pt2 in the run"
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--size", type=parse_size, metavar="HxW", help="one size of the input")
    sizes.add_argument("--dynamic", action="store_true", help="any size (the default)")
    parser.add_argument("--nms", action="store_true", help="NMS inside, without score voting")
    add_trust(parser)
    args = parser.parse_args(argv)
    with user_errors():
        return export(args)


if __name__ == "__main__":
    sys.exit(main())
