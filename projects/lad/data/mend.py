"""Mended copies of folders of labeled images, in COCO's layout."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lad.data.check import Check, describe_box, leaves_image, photo_keys
from lad.data.folders import clip_box, read_folder, split_photos, to_coco
from lad.data.layouts import Layout, Photo


def check_output(out: str | os.PathLike) -> None:
    """Raises ValueError if the folder of a mended copy exists or cannot be made."""
    out = Path(out)
    if out.exists() or out.is_symlink():
        raise ValueError(f"--fix {out}: it exists already: name a new folder")
    parent = next(x for x in Path(os.path.abspath(out)).parents if x.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"--fix {out}: it cannot be made in {parent}; choose another place")


def write_mended(check: Check, out: str | os.PathLike) -> list[str]:
    """Writes what can be used as ``annotations/{train,val,test}.json`` beside folders of images.

    Images that cannot be used and boxes without area are left out, boxes are clipped, a photo
    stays in one split only. Images are hard links where the file system allows it, else copies.

    Args:
        check: of the folder.
        out: made here; nothing is left there if that fails.

    Returns:
        What was changed, a line each.

    Raises:
        ValueError: if the folder cannot be read, ``out`` exists, or too little is left.
    """
    check_output(out)
    if check.layout is None:
        raise ValueError(f"--fix {out}: nothing was written: {check.problems[-1]}")
    layout, changes = mend(check.layout, check.damaged)
    changes = [f"left out: {problem}" for problem in check.problems] + changes
    parent = Path(os.path.abspath(out)).parent
    parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is complete and can be read.
    with tempfile.TemporaryDirectory(prefix=".mended-", dir=parent) as name:
        folder = Path(name) / "data"
        (folder / "annotations").mkdir(parents=True)
        for split, photos in layout.splits.items():
            placed, renamed = place_images(photos, folder / split)
            changes += renamed
            content = json.dumps(to_coco(placed, layout.class_names))
            (folder / "annotations" / f"{split}.json").write_text(content)
        try:
            read_folder(folder)
        except ValueError as error:
            reason = str(error).replace(str(folder), str(out))
            raise ValueError(f"--fix: nothing was written: {reason}") from error
        folder.rename(out)
    return changes


def place_images(photos: Iterable[Photo], folder: Path) -> tuple[list[Photo], list[str]]:
    """Links or copies images into a folder.

    Returns:
        The images with their names in the folder, and a line for each that has another name now.
    """
    folder.mkdir()
    placed: list[Photo] = []
    lines = []
    taken: set[str] = set()
    for photo in photos:
        source = photo.path.resolve()
        name, number = photo.path.name, 1
        while name.lower() in taken:  # some file systems do not tell A.jpg from a.jpg
            number += 1
            name = f"{photo.path.stem}-{number}{photo.path.suffix}"
        taken.add(name.lower())
        if number > 1:
            lines.append(f"renamed: {photo.path} is {folder.name}/{name}")
        try:
            os.link(source, folder / name)
        except OSError:  # another file system, or one without links
            shutil.copy2(source, folder / name)
        placed.append(photo._replace(path=Path(name)))
    return placed, lines


def mend(layout: Layout, damaged: Iterable[Path] = ()) -> tuple[Layout, list[str]]:
    """Leaves out and clips what `write_mended` says.

    Args:
        layout: of a folder.
        damaged: images to leave out.

    Returns:
        The rest, and a line for each change.

    Raises:
        ValueError: if no image is left to train on.
    """
    left_out = set(damaged)
    splits = {
        split: [photo for photo in photos if photo.path not in left_out]
        for split, photos in layout.splits.items()
    }
    layout, lines = _separate(layout._replace(splits=splits))
    for split, photos in layout.splits.items():
        mended = [_mend_boxes(layout, photo) for photo in photos]
        layout.splits[split] = [photo for photo, _ in mended]
        lines += [line for _, changes in mended for line in changes]
    return _merge_classes(layout, lines), lines


def _mend_boxes(layout: Layout, photo: Photo) -> tuple[Photo, list[str]]:
    objects, lines = [], []
    for entry in photo.objects:
        box = clip_box(entry["bbox"], photo)
        where = describe_box(layout, photo, entry)
        if box is None:
            lines.append(f"left out, without area: {where}")
            continue
        if leaves_image(entry["bbox"], photo):
            lines.append(f"clipped: {where}")
            # The area is that of the whole box, or of the mask.
            entry = {key: value for key, value in entry.items() if key != "area"}
        objects.append({**entry, "bbox": box})
    return photo._replace(objects=objects), lines


def _separate(layout: Layout) -> tuple[Layout, list[str]]:
    """Keeps each photo in one split: the first of test, validation and training that has it.

    A split that has all training photos goes, because it would leave none.
    """
    keys = photo_keys(layout)
    taken: dict[str, str] = {}
    splits: dict[str, list[Photo]] = {}
    lines: list[str] = []
    for split in ("test", "val", "train"):
        photos = layout.splits.get(split, [])
        own = {key for photo in photos for key in keys[photo.path]}
        if split != "train" and not any(
            own.isdisjoint(keys[photo.path]) for photo in layout.splits["train"]
        ):
            lines.append(f"left out: {split}: it has all training photos")
            continue
        kept = []
        for photo in photos:
            owner = next((taken[key] for key in keys[photo.path] if key in taken), None)
            if owner is None:
                kept.append(photo)
            else:
                lines.append(f"left out of {split}: {photo.path}: its photo is in {owner}")
        taken |= {key: split for photo in kept for key in keys[photo.path]}
        splits[split] = kept
    if not splits["train"]:
        raise ValueError("--fix: no training image is left: add images")
    if not splits.get("val"):
        splits["train"], splits["val"] = split_photos(splits["train"])
        lines.append("val: a fifth of the training images, because there was no other split")
    # In the usual order.
    return layout._replace(splits={x: splits[x] for x in layout.splits if x in splits}), lines


def _merge_classes(layout: Layout, lines: list[str]) -> Layout:
    """Merges classes of one name."""
    names = list(dict.fromkeys(layout.class_names))
    if len(names) == len(layout.class_names):
        return layout
    lines.append("classes of one name are one class")
    splits = {}
    for split, photos in layout.splits.items():
        splits[split] = [
            photo._replace(
                objects=[
                    {**x, "category_id": names.index(layout.class_names[x["category_id"]])}
                    for x in photo.objects
                ]
            )
            for photo in photos
        ]
    return layout._replace(class_names=names, splits=splits)
