"""Folders of images and labels as datasets: no code, no registration."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from lad.data.layouts import Layout, Photo, Report, read_coco, read_roboflow
from lad.data.normalize import clipped_box, leaves
from lad.data.voc import read_voc
from lad.data.yolo import read_yolo

VAL_SHARE = 0.2  # of a folder without a validation split


def read_folder(folder: str | os.PathLike, report: Report | None = None) -> Layout:
    """Reads a folder in one of the layouts Roboflow COCO, COCO, YOLO and Pascal VOC, in this order.

    Without validation images a fifth of the training images are taken, see `split_photos`.

    Args:
        folder: what a labeling tool exports.
        report: called with one line for each wrong entry, which is then left out; by default the
            first one raises ValueError.

    Raises:
        FileNotFoundError: if the folder, or a part of it, does not exist.
        ValueError: if its layout is not known, an entry is wrong or nothing is left.
    """
    folder = Path(os.path.abspath(Path(folder).expanduser()))
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; unpack an archive first")
    for read in (read_roboflow, read_coco, read_yolo, read_voc):
        layout = read(folder, report or _stop)
        if layout is not None:
            return _with_validation(folder, layout)
    raise ValueError(
        f"{folder}: no known layout; it needs train/_annotations.coco.json, annotations/*.json, "
        "data.yaml, images/ and labels/, or Annotations/*.xml (docs/data.md)"
    )


def _stop(problem: str) -> None:
    raise ValueError(problem)


def _with_validation(folder: Path, layout: Layout) -> Layout:
    splits = layout.splits
    if not splits.get("train"):
        raise ValueError(f"{folder}: no training image can be used ({layout.name})")
    if not layout.class_names:
        raise ValueError(f"{folder}: there are no classes: no image has an object ({layout.name})")
    if not splits.get("val"):
        train, val = split_photos(splits["train"])
        if not train:
            raise ValueError(
                f"{folder}: there is no validation split, and one photo cannot be split in two: "
                "add photos"
            )
        splits = {**splits, "train": train, "val": val}
    if not any(map(has_objects, splits["train"])):
        raise ValueError(f"{folder}: no training image has an object: add labels ({layout.name})")
    return layout._replace(splits=splits)


def split_photos(photos: Sequence[Photo]) -> tuple[list[Photo], list[Photo]]:
    """Returns training and validation images: about 80 and 20 %.

    A photo's side depends on a hash of its name alone, so it stays when others are added, and all
    copies that Roboflow makes of a photo are on one side. If that leaves a side without images, the
    photo with the lowest hash is for validation, and the others for training. A side without
    objects is avoided in the same way where two photos have some.
    """
    hashes = [name_hash(photo.path.name) for photo in photos]
    labeled = {x for photo, x in zip(photos, hashes, strict=True) if has_objects(photo)}
    deciding = sorted(labeled if len(labeled) > 1 else set(hashes))
    limit = VAL_SHARE
    if not deciding[0] < limit <= deciding[-1]:
        limit = deciding[1] if len(deciding) > 1 else 1.0
    train = [photo for photo, x in zip(photos, hashes, strict=True) if x >= limit]
    val = [photo for photo, x in zip(photos, hashes, strict=True) if x < limit]
    return train, val


def has_objects(photo: Photo) -> bool:
    """Whether an image has a box with an area, other than a crowd region."""
    return any(clip_box(x["bbox"], photo) and not x.get("iscrowd") for x in photo.objects)


def source_name(file_name: str) -> str:
    """Returns the name of the photo that an image file was made from, without its ending.

    Example: "cat_jpg.rf.1a2b.jpg", "cat.rf.3c4d.jpg" and "cat.jpg" are all "cat".
    """
    stem = unicodedata.normalize("NFC", Path(file_name).stem)
    return re.sub(r"(_(jpe?g|png|bmp|webp|tiff?))?\.rf\.\w+$", "", stem, flags=re.IGNORECASE)


def name_hash(file_name: str) -> float:
    """Returns a number in [0, 1) that depends on `source_name` alone."""
    digest = hashlib.sha256(source_name(file_name).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def write_coco_files(layout: Layout, folder: str | os.PathLike, *, replace: bool) -> None:
    """Writes ``{train,val,test}.json``: each split's images and objects in COCO's format.

    Boxes are clipped to their image; those without area are left out. Several processes may write
    the same files.

    Args:
        layout: of a folder.
        folder: made if needed.
        replace: replace files with other content.

    Raises:
        ValueError: if a file has other content and is not to be replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split, photos in layout.splits.items():
        path = folder / f"{split}.json"
        text = json.dumps(to_coco(photos, layout.class_names))
        if path.exists() and path.read_text() != text and not replace:
            raise ValueError(
                f"{path}: the data have changed since this run began: resume it with its "
                "config.yaml and without --data, or choose another train.output_dir"
            )
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            file.write(text)
        os.chmod(file.name, 0o644)  # temporary files exclude other users
        os.replace(file.name, path)


def to_coco(photos: Sequence[Photo], class_names: Sequence[str]) -> dict:
    """Returns images and objects in COCO's instances format; all ids start at 1."""
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, photo in enumerate(photos, start=1):
        size = {"width": photo.width, "height": photo.height}
        images.append({"id": image_id, "file_name": str(photo.path), **size})
        for entry in photo.objects:
            box = clip_box(entry["bbox"], photo)
            if box is None:
                continue
            area = entry.get("area", math.inf)
            if leaves(entry["bbox"], (photo.width, photo.height)) or area == math.inf:
                area = min(area, box[2] * box[3])
            annotation = {
                "iscrowd": 0,
                **entry,
                "area": area,
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": entry["category_id"] + 1,
                "bbox": box,
            }
            annotations.append(annotation)
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def clip_box(box: Sequence[float], photo: Photo) -> list[float] | None:
    """Returns a box (x, y, width, height) clipped to its image, None if no area is left."""
    return clipped_box(box, (photo.width, photo.height))
