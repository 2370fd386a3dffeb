"""Writes a page that shows which anchors each network assigns, its costs, and who teaches.

    lad inspect --config-file output/digits/lad --out page.html
    lad inspect --config-file output/digits/lad --image photo.jpg --out page.html
    lad inspect --config-file digits/lad.py --checkpoints a.pth b.pth --out page.html

Without --image the page shows the first images with objects of a dataset. The labels of --image are
those of the dataset's image of the same name; without one, the detector's own detections stand in.
"""

from __future__ import annotations

import argparse
import filecmp
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetMapper, MetadataCatalog
from omegaconf import DictConfig
from torch import nn
from tqdm import tqdm

from lad.checkpoint import load_weights
from lad.data import get_dataset_dicts
from lad.engine.command_line import add_trust
from lad.engine.config import build, load_config, user_errors
from lad.engine.inspection import labeled_mapper
from lad.engine.setup import dataset_names, resolve_device, use_own_data
from lad.inspection.compute import (
    check_inspectable,
    detected_instances,
    inspect_batch,
    training_rule,
)
from lad.inspection.data import objects_of, to_data
from lad.inspection.page import image_source, render, to_pixels
from lad.media import read_image
from lad.modeling.network import is_frozen, model_info

logger = logging.getLogger(__name__)


def find_checkpoints(config_file: Path, config: DictConfig) -> list[Path]:
    """Returns a training's model_*.pth in their order, without the best one's copy.

    Raises:
        FileNotFoundError: if there is none.
    """
    beside = config_file.name == "config.yaml"
    folder = config_file.parent if beside else Path(config.train.output_dir)
    found = {int(x.stem[6:]): x for x in folder.glob("model_*.pth") if x.stem[6:].isdecimal()}
    final = folder / "model_final.pth"
    if final.is_file():
        found.pop(config.train.max_iter - 1, None)  # the same weights
    paths = [found[iteration] for iteration in sorted(found)]
    paths += [final] if final.is_file() else []
    if not paths:
        raise FileNotFoundError(f"{folder}: it holds no model_*.pth; name files with --checkpoints")
    return paths


def checkpoint_name(path: Path) -> str:
    """Returns "iteration 100" for model_0000099.pth, else the file's name."""
    match = re.fullmatch(r"model_(\d{7,})", path.stem)
    return f"iteration {int(match[1]) + 1}" if match else path.stem


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Loads a training's checkpoint, and a frozen teacher that it leaves out from its own.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if weights are missing.
    """
    info = model_info(model)
    teacher = info.networks.get("teacher")
    if teacher is not None and not is_frozen(teacher):
        teacher = None
    needed = [name for name, network in info.networks.items() if network is not teacher]
    report = load_weights(model, str(path), source="--checkpoints", complete=needed)
    lacking = [x for x in [*report.missing, *report.mismatched] if x.startswith("teacher.")]
    if teacher is None or not lacking:
        return
    if not info.checkpoints.get("teacher"):
        raise ValueError(
            f"--checkpoints={path}: it lacks weights of the teacher: set model.teacher_checkpoint"
        )
    source = "model.teacher_checkpoint"
    load_weights(teacher, info.checkpoints["teacher"], source=source, complete=True)


def find_records(
    dataset: str | None, images: Sequence[Path], count: int, names: Sequence[str]
) -> list[dict]:
    """Returns Detectron2's dataset dicts of what the page shows, some without "annotations".

    Args:
        dataset: named by the user, so that it has to exist.
        images: files; if there are none, the first ``count`` images with objects are taken.
        count: of images.
        names: of the datasets.

    Raises:
        ValueError: if a dataset or an image cannot be read.
        FileNotFoundError: if a file is missing.
    """
    if not images:
        if not names:
            raise ValueError("the config has no test dataset: add --dataset NAME or --image FILE")
        return get_dataset_dicts(names, outside_root=True)[:count]
    records: list[dict] = []
    try:
        if names:
            records = get_dataset_dicts(names, filter_empty=False, outside_root=True)
    except (ValueError, OSError) as error:
        if dataset:
            raise
        logger.warning(f"The test dataset cannot be read, so labels are unknown: {error}")
    return [_record(path, records) for path in images]


def _record(path: Path, records: Sequence[dict]) -> dict:
    """Returns an image's entry in a dataset, by its path or by name and size; else a new one.

    An entry of the same name counts if its file is a copy of the image, or is not on this machine.
    """
    height, width = read_image(path).shape[:2]
    own = {"file_name": str(path), "height": height, "width": width}
    same = [x for x in records if Path(x["file_name"]).resolve() == path.resolve()]
    for record in same or [x for x in records if _is_copy(path, Path(x["file_name"]))]:
        if (record["height"], record["width"]) == (height, width):
            return record | own
    return own


def _is_copy(path: Path, other: Path) -> bool:
    return other.name == path.name and (not other.is_file() or filecmp.cmp(path, other, False))


def class_names(names: Sequence[str], model: nn.Module) -> list[str]:
    """Returns the names of the classes, their numbers if they are unknown.

    Raises:
        ValueError: if the dataset has another number of classes than the model.
    """
    number = model_info(model).num_classes or 0
    known = MetadataCatalog.get(names[0]).get("thing_classes") if names else None
    if known is None:
        return [str(index) for index in range(number)]
    if len(known) != number:
        raise ValueError(
            f"dataset {names[0]!r} has {len(known)} classes, the model {number}: name another "
            "--dataset"
        )
    return list(known)


def page_data(
    model: nn.Module,
    checkpoints: Sequence[Path],
    records: Sequence[dict],
    mapper: DatasetMapper,
    names: Sequence[str],
    threshold: float,
) -> dict[str, Any]:
    """Inspects every checkpoint on all images as one batch; returns what `render` takes."""
    inputs = [mapper(record) for record in records]
    notes = add_detections(model, checkpoints[-1], inputs, threshold)
    states = []
    for path in tqdm(checkpoints, unit="checkpoint", dynamic_ncols=True):
        load_checkpoint(model, path)
        inspection = inspect_batch(model, inputs)
        states.append({"name": checkpoint_name(path), **to_data(inspection)})
    images = [
        {
            "name": Path(prepared["file_name"]).name,
            "note": note,
            "height": prepared["image"].shape[1],
            "width": prepared["image"].shape[2],
            "source": image_source(to_pixels(prepared["image"], mapper.image_format)),
            "objects": [
                {"name": names[x["class"]], "box": x["box"]} for x in objects_of(inspection, index)
            ],
        }
        for index, (prepared, note) in enumerate(zip(inputs, notes, strict=True))
    ]
    rule = training_rule(model)
    return {
        "rule": rule.text,
        "scope": rule.scope,
        "indicator": rule.indicator,
        "networks": list(inspection.views),
        "strides": list(inspection.anchors.strides),
        "images": images,
        "checkpoints": states,
    }


def add_detections(
    model: nn.Module, checkpoint: Path, inputs: Sequence[dict], threshold: float
) -> list[str]:
    """Gives inputs without labels the detections of a checkpoint; returns a note for each input."""
    notes = [""] * len(inputs)
    for index, prepared in enumerate(inputs):
        if "instances" not in prepared:
            if not any(notes):
                load_checkpoint(model, checkpoint)
            prepared["instances"] = detected_instances(model, prepared["image"], threshold)
            notes[index] = (
                "This image has no labels. Its objects are the model's own detections at "
                f"{checkpoint_name(checkpoint)} that score at least {threshold:g}."
            )
    return notes


def inspect(args: argparse.Namespace) -> None:
    """Writes the page."""
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} exists: choose another --out, or add --overwrite")
    if args.count < 1 or not 0 <= args.threshold <= 1:
        raise ValueError("--count has to be at least 1, and --threshold a number from 0 to 1")
    file = args.config_file / "config.yaml" if args.config_file.is_dir() else args.config_file
    config = load_config(str(file), args.opts, trusted=args.trust)
    use_own_data(config, file)
    checkpoints = args.checkpoints or find_checkpoints(file, config)
    mapper = labeled_mapper(config)
    model = build(config, "model")
    check_inspectable(model)
    names = [args.dataset] if args.dataset else dataset_names(config, "test")
    records = find_records(args.dataset, args.image, args.count, names)
    classes = class_names(names, model)
    model.to(resolve_device(args.device, key="--device")).eval()
    data = page_data(model, checkpoints, records, mapper, classes, args.threshold)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(render(f"Label assignment: {args.config_file}", data), encoding="utf-8")
    print(f"{args.out}: {len(records)} images, {len(checkpoints)} checkpoints")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    lines = __doc__.splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        required=True,
        metavar="FILE_OR_RUN",
        help="a config, or the output folder of a training",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .html file")
    parser.add_argument("--image", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--dataset", metavar="NAME", help="default: the config's test dataset")
    parser.add_argument("--count", type=int, default=4, help="images of the dataset (default 4)")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="default: all model_*.pth of the training",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="lowest score of detections that stand in for labels (default 0.5)",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    add_trust(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides of the config")
    args = parser.parse_args(argv)
    with user_errors():
        inspect(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
