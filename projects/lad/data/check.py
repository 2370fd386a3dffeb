"""What is wrong or suspicious in a folder of labeled images."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from lad.data.folders import clip_box, has_objects, read_folder, source_name
from lad.data.images import MAX_PIXELS, UnreadableImage, read_image
from lad.data.layouts import Layout, Photo
from lad.data.normalize import leaves


class Finding(NamedTuple):
    """Something that a person should look at.

    Attributes:
        text: a line with file and entry.
        photos: the images that it is about.
        entries: the objects of the first image that it is about.
    """

    text: str
    photos: tuple[Photo, ...]
    entries: tuple[Mapping, ...] = ()


class Check(NamedTuple):
    """What a check found.

    Attributes:
        layout: of the folder, without what cannot be used; None if it cannot be read.
        problems: what training refuses, a line each with file and entry.
        damaged: the images that cannot be decoded; they are among the problems.
        warnings: lines about whole splits.
        findings: by their title.
    """

    layout: Layout | None
    problems: list[str]
    damaged: frozenset[Path] = frozenset()
    warnings: Sequence[str] = ()
    findings: Mapping[str, Sequence[Finding]] = {}


def check_folder(folder: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Check:
    """Reads a folder as `read_folder` does, decodes all images and looks at all boxes.

    Args:
        folder: as for `read_folder`.
        max_pixels: images with more pixels are problems.
    """
    problems: list[str] = []
    try:
        layout = read_folder(folder, problems.append)
    except (ValueError, OSError) as error:
        return Check(None, [*problems, str(error)])
    photos = {photo.path: photo for photo in _photos(layout)}
    damaged = damaged_images(photos.values(), max_pixels)
    return Check(
        layout=layout,
        problems=problems + list(damaged.values()),
        damaged=frozenset(damaged),
        warnings=split_warnings(layout),
        findings={
            "Boxes without area in their image, which are left out": boxes_without_area(layout),
            "Boxes that leave their image, which are clipped": boxes_outside(layout),
            "Photos in two splits, which makes the evaluation too good": shared_photos(layout),
        },
    )


def damaged_images(photos: Iterable[Photo], max_pixels: int = MAX_PIXELS) -> dict[Path, str]:
    """Returns a line for each image that has a readable header but cannot be used."""
    lines = {}
    for photo in tqdm(list(photos), "images", unit="image", disable=None, leave=False):
        try:
            read_image(
                str(photo.path), "RGB", size=(photo.width, photo.height), max_pixels=max_pixels
            )
        except UnreadableImage as error:
            reason = str(error).removeprefix(f"{photo.path}: ").rpartition(": ")[0]
            lines[photo.path] = f"{photo.path}: is damaged ({reason}): replace or remove it"
    return lines


def split_warnings(layout: Layout) -> list[str]:
    """Returns a line for each split that makes an evaluation worthless."""
    lines = []
    train = {name for photo in layout.splits["train"] for name in _names(photo)}
    for split, photos in layout.splits.items():
        if split == "train":
            continue
        if not any(map(has_objects, photos)):
            lines.append(f"{split}: no image has an object, so AP is not defined: add labels to it")
        if shared := sum(not train.isdisjoint(_names(photo)) for photo in photos):
            lines.append(
                f"{split}: {shared} of {len(photos)} images are training images, too, or copies of "
                "them, so AP is too high: name other images (without a validation split a fifth "
                "of the training images are taken)"
            )
    return lines


def _names(photo: Photo) -> list[str]:
    """Returns an image's path, and the name of the photo that Roboflow copied it from."""
    is_copy = re.search(r"\.rf\.\w+\.\w+$", photo.path.name)
    return [str(photo.path), *([f"copy of {source_name(photo.path.name)}"] if is_copy else [])]


def leaves_image(box: Sequence[float], photo: Photo) -> bool:
    """Whether a box (x, y, width, height) is more than a rounding error outside its image."""
    return leaves(box, (photo.width, photo.height))


def count_split(photos: Sequence[Photo]) -> list[int]:
    """Returns the numbers of images, images without objects, objects, and two kinds of boxes.

    The last two are boxes that leave their image, and boxes without area in it.
    """
    boxes = [(entry["bbox"], photo) for photo in photos for entry in photo.objects]
    without_area = [clip_box(box, photo) is None for box, photo in boxes]
    outside = [leaves_image(box, photo) for box, photo in boxes]
    return [
        len(photos),
        sum(not photo.objects for photo in photos),
        len(boxes),
        sum(x and not y for x, y in zip(outside, without_area, strict=True)),
        sum(without_area),
    ]


def count_classes(layout: Layout) -> dict[str, Counter[int]]:
    """Returns each split's number of objects by class index."""
    return {
        split: Counter(entry["category_id"] for photo in photos for entry in photo.objects)
        for split, photos in layout.splits.items()
    }


def boxes_without_area(layout: Layout) -> list[Finding]:
    """Returns the boxes that have no area, or none inside their image."""
    return [
        _about_box(layout, photo, entry)
        for photo in _photos(layout)
        for entry in photo.objects
        if clip_box(entry["bbox"], photo) is None
    ]


def boxes_outside(layout: Layout) -> list[Finding]:
    """Returns the boxes that are partly outside their image."""
    return [
        _about_box(layout, photo, entry)
        for photo in _photos(layout)
        for entry in photo.objects
        if leaves_image(entry["bbox"], photo) and clip_box(entry["bbox"], photo)
    ]


def _photos(layout: Layout) -> list[Photo]:
    return [photo for photos in layout.splits.values() for photo in photos]


def _about_box(layout: Layout, photo: Photo, entry: Mapping) -> Finding:
    return Finding(describe_box(layout, photo, entry), (photo,), (entry,))


def describe_box(layout: Layout, photo: Photo, entry: Mapping) -> str:
    """Returns file and entry, class, corner and size of an object, and its image."""
    x, y, width, height = entry["bbox"]
    return (
        f"{photo.where(entry)}: {layout.class_names[entry['category_id']]}, "
        f"{width:.5g}x{height:.5g} px at ({x:.5g}, {y:.5g}) in {photo.path.name} "
        f"({photo.width}x{photo.height})"
    )


def shared_photos(layout: Layout) -> list[Finding]:
    """Returns the images of a split that are, or are copies of, images of another split.

    They are found by their content, and by the photo's name where Roboflow made copies.
    """
    keys = photo_keys(layout)
    by_key: dict[str, dict[str, Photo]] = {split: {} for split in layout.splits}
    for split, photos in layout.splits.items():
        for photo in photos:
            for key in keys[photo.path]:
                by_key[split].setdefault(key, photo)
    findings = []
    for (first, ours), (second, theirs) in combinations(by_key.items(), 2):
        pairs = {
            (a.path, b.path): (a, b)
            for key in ours.keys() & theirs.keys()
            for a, b in [(ours[key], theirs[key])]
        }
        for (path, other), pair in sorted(pairs.items()):
            text = f"{path} ({first}) is the photo of {other} ({second})"
            findings.append(Finding(text, pair))
    return findings


def photo_keys(layout: Layout) -> dict[Path, set[str]]:
    """Returns what tells, by an image's path, which photo it is.

    Two images are of one photo if they share a key: their content, or Roboflow's name of it.
    """
    photos = {photo.path: photo for photo in _photos(layout)}
    sizes = {path: path.stat().st_size for path in photos}
    number = Counter(sizes.values())
    keys = {}
    for path, photo in photos.items():
        keys[path] = set(_names(photo))
        if number[sizes[path]] > 1:  # else its content is its own
            keys[path].add(hashlib.sha256(path.read_bytes()).hexdigest())
    return keys
