"""Reader of folders in YOLO's layout."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lad.data.layouts import SPLIT_NAMES, Layout, Photo, Report, images_in, open_photo, read_text

MAX_COORDINATE = 2.0  # of the image's side; larger numbers are pixels


def read_yolo(folder: Path, report: Report) -> Layout | None:
    """Reads ``data.yaml``, or ``images/`` beside ``labels/``; returns None if there are none.

    An image's objects are in the file of its name in ``labels/`` in place of ``images/``: rows of
    a class and a box (center, width, height) or polygon, as shares of the image. A polygon becomes
    its box; of a pose (``kpt_shape``) the box counts. Without ``data.yaml`` the names are in
    ``classes.txt``, or are the classes' numbers.

    Raises:
        ValueError: if data.yaml cannot be used.
        FileNotFoundError: if a split's images are not found.
    """
    file = folder / "data.yaml"
    class_names: list[str] | None
    keypoints = 0
    if file.is_file():
        content = _read_yaml(file)
        keypoints = _keypoint_values(file, content)
        class_names = _class_names(file, content)
        images = _images_of_yaml(file, content)
    elif (folder / "images").is_dir() and (folder / "labels").is_dir():
        class_names = _names_of_text(folder)
        images = _images_of_folder(folder / "images")
    else:
        return None
    splits = {}
    for split, paths in images.items():
        labels = [label_file(path, folder) for path in paths]
        pairs = zip(paths, labels, strict=True)
        photos = [_read_photo(*pair, class_names, keypoints, report) for pair in pairs]
        splits[split] = [photo for photo in photos if photo]
        if not any(path.is_file() for path in labels):
            report(f"no image of the {split} split has labels: {labels[0]} does not exist")
    if class_names is None:
        used = [o["category_id"] for photos in splits.values() for p in photos for o in p.objects]
        class_names = [str(number) for number in range(max(used, default=0) + 1)]
    return Layout("YOLO", class_names, splits)


def read_names(file: Path) -> list[str]:
    """Returns the names of the classes in a ``data.yaml``.

    Raises:
        ValueError: if it has none, or is no YAML.
    """
    return _class_names(file, _read_yaml(file))


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        # All values as text: YAML would turn the class names "no" and "on" into booleans.
        content = yaml.load(read_text(file), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: it is not YAML: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: it needs the keys names, train and val")
    return content


def _class_names(file: Path, content: dict[str, Any]) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        if sorted(names) != sorted(numbers):
            raise ValueError(f"{file}: names has the keys {', '.join(names)}: number them from 0")
        names = [names[number] for number in numbers]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file}: names is missing: list the classes' names")
    if "nc" in content and content["nc"] != str(len(names)):
        raise ValueError(f"{file}: nc is {content['nc']}, but there are {len(names)} names")
    if repeated := sorted({str(x) for x in names if names.count(x) > 1}):
        raise ValueError(f"{file}: several classes are named {repeated[0]!r}: rename them")
    return [str(name) for name in names]


def _names_of_text(folder: Path) -> list[str] | None:
    for file in (folder / "classes.txt", folder / "labels/classes.txt"):
        if file.is_file():
            return [name for line in read_text(file).splitlines() if (name := line.strip())]
    return None


def _images_of_folder(folder: Path) -> dict[str, list[Path]]:
    found = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            if paths := images_in(folder / name):
                found[split] = paths
    if "train" not in found:
        found = {"train": images_in(folder)}
    if not found["train"]:
        raise FileNotFoundError(f"{folder}: there are no images in it")
    return found


def _images_of_yaml(file: Path, content: dict[str, Any]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            values = content.get(name) or []
            for value in [values] if isinstance(values, str) else values:
                place = _locate(file, content.get("path") or "", value, file.parent)
                # Exports often name a test split that they do not have.
                if place is None and split != "test":
                    raise FileNotFoundError(f"{file}: {name}: {value} does not exist in its folder")
                found.setdefault(split, []).extend(_images_at(place, file.parent) if place else [])
    if not found.get("train"):
        raise ValueError(f"{file}: train: it names no folder with images")
    if "val" in found and not found["val"]:
        raise ValueError(
            f"{file}: val: it names no folder with images; without the key val, "
            "a fifth of the training images are taken"
        )
    return {split: list(dict.fromkeys(paths)) for split, paths in found.items() if paths}


def _locate(file: Path, root: str, value: str, folder: Path) -> Path | None:
    """Returns the place in the folder of the data that data.yaml or a list of images means.

    Most files name a place on the machine that wrote them: the last parts of the path are then
    looked up beside the file.
    """
    parts = [part for part in Path(value.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    candidates = [file.parent / root / value, file.parent / value]
    candidates += [file.parent.joinpath(*parts[start:]) for start in range(len(parts))]
    for path in map(Path, map(os.path.normpath, candidates)):
        inside = (
            Path(f(path)).is_relative_to(f(folder)) for f in (os.path.abspath, os.path.realpath)
        )
        if path.exists() and any(inside):
            return path
    return None


def _images_at(place: Path, folder: Path) -> list[Path]:
    if place.is_dir():
        return images_in(place)
    paths = []
    for number, line in enumerate(read_text(place).splitlines(), start=1):
        line = line.strip()
        path = _locate(place, "", line, folder) if line else None
        if path is None and line:
            raise FileNotFoundError(f"{place}:{number}: {line} does not exist in {folder}")
        paths += [path] if path else []
    return paths


def label_file(image: Path, folder: Path) -> Path:
    """Returns where the labels of an image in the folder of the data are."""
    parts = list(image.parts)
    first = len(folder.parts) if image.is_relative_to(folder) else 0
    for index in range(len(parts) - 2, first - 1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _keypoint_values(file: Path, content: Mapping[str, Any]) -> int:
    """Returns how many numbers of a pose dataset's rows follow the box; 0 for others."""
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    # All values are read as text.
    if not (isinstance(shape, list) and len(shape) == 2 and all(x.isdecimal() for x in shape)):
        raise ValueError(f"{file}: kpt_shape is {shape}: write [number of keypoints, 2 or 3]")
    return int(shape[0]) * int(shape[1])


def _read_photo(
    path: Path, file: Path, class_names: Sequence[str] | None, keypoints: int, report: Report
) -> Photo | None:
    photo = open_photo(path, [], report, file)
    if photo and file.is_file():
        size = (photo.width, photo.height)
        limit = math.inf if class_names is None else len(class_names)
        photo.objects.extend(_read_labels(file, size, limit, keypoints, report))
    return photo


def _read_labels(
    file: Path, size: tuple[int, int], num_classes: float, keypoints: int, report: Report
) -> Iterator[dict[str, Any]]:
    try:
        lines = read_text(file).splitlines()
    except ValueError as error:
        report(str(error))
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError:
            report(f"{where}: {line.strip()[:40]!r} is not a row of numbers")
            continue
        if keypoints and len(values) == 4 + keypoints:
            values = values[:4]
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            report(
                f"{where}: it has {len(values)} numbers after the class; a box has 4, a polygon "
                "an even number from 6 on"
            )
        elif not (label.is_integer() and 0 <= label < num_classes):
            report(f"{where}: class {label:g}, but the {num_classes} names are numbered from 0")
        elif not all(abs(value) <= MAX_COORDINATE for value in values):
            report(f"{where}: coordinates are shares of the image, from 0 to 1, not pixels")
        else:
            yield {"bbox": _pixel_box(values, size), "category_id": int(label), "id": number}


def _pixel_box(values: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Returns x, y, width and height in pixels of a box or polygon in shares of the image.

    Example: (0.5, 0.5, 0.2, 0.4) in an image of 100x50 is (40, 15, 20, 20).
    """
    if len(values) == 4:
        x, y, width, height = values
        left, top = x - width / 2, y - height / 2
    else:
        left, top = min(values[::2]), min(values[1::2])
        width, height = max(values[::2]) - left, max(values[1::2]) - top
    return [left * size[0], top * size[1], width * size[0], height * size[1]]
