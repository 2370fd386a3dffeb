"""What readers of labeled folders return, and the readers of COCO's layouts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lad.data.annotations import read_coco_json, wrong_entries
from lad.data.images import opened, shown_size
from lad.data.normalize import valid_segmentation

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}

# Takes one line about a wrong entry, which is then left out; or raises ValueError with it.
Report = Callable[[str], None]


class Photo(NamedTuple):
    """An image file with its objects.

    Attributes:
        path: of the file.
        width: in pixels, as Detectron2 reads the file: turned by its EXIF orientation.
        height: in pixels.
        objects: COCO annotations: "bbox" (x, y, width, height in pixels), "category_id", the class
            index, and "id", by which the file of labels knows it.
        labels: the file that the objects are from.
    """

    path: Path
    width: int
    height: int
    objects: list[dict[str, Any]]
    labels: Path | None = None

    def where(self, entry: Mapping[str, Any]) -> str:
        """Returns the file and entry of an object, e.g. "labels/1.txt:3"."""
        if self.labels is None:
            return str(self.path)
        kinds = {".txt": ":", ".xml": ": object "}
        return f"{self.labels}{kinds.get(self.labels.suffix, ': annotation ')}{entry.get('id')}"


class Layout(NamedTuple):
    """What a reader found.

    Attributes:
        name: of the layout.
        class_names: in the order of the class indices.
        splits: photos by "train", "val" and "test", as far as the folder has them.
    """

    name: str
    class_names: list[str]
    splits: dict[str, list[Photo]]


def read_roboflow(folder: Path, report: Report) -> Layout | None:
    """Reads ``{train,valid,test}/_annotations.coco.json``; returns None if there are none.

    Category 0 is Roboflow's name for the whole project; it is dropped if no object has it.
    """
    files: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        found = [folder / name / "_annotations.coco.json" for name in names]
        files.update((split, path) for path in found if path.is_file())
    if not files:
        return None
    return _read_coco("Roboflow COCO", folder, files, lambda path: [path.parent], report)


def read_coco(folder: Path, report: Report) -> Layout | None:
    """Reads ``annotations/*.json`` beside folders of images; returns None if there are none.

    A single file that is named otherwise is the training split.

    Raises:
        ValueError: if it is not clear which file is a split's.
    """
    present = sorted((folder / "annotations").glob("*.json"))
    files = {}
    for split, names in SPLIT_NAMES.items():
        if path := _choose([p for p in present if _is_split(p.stem, names)]):
            files[split] = path
    if not files and len(present) == 1:
        files["train"] = present[0]
    if not files:
        return None

    def image_folders(path: Path) -> list[Path]:
        stem = path.stem.removeprefix("instances_")
        names = dict.fromkeys([stem, re.sub(r"\d+$", "", stem)])
        return [
            *(folder / name for name in names),
            *(folder / "images" / name for name in names),
            folder / "images",
            folder,
        ]

    return _read_coco("COCO", folder, files, image_folders, report)


def _is_split(stem: str, names: Iterable[str]) -> bool:
    return stem.removeprefix("instances_").startswith(tuple(names))


def _choose(paths: Sequence[Path]) -> Path | None:
    # COCO has other files of a split beside the instances: captions, keypoints.
    paths = [p for p in paths if p.stem.startswith("instances_")] or paths
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise ValueError(f"{paths[0].parent}: {names} are files of one split: keep one of them")
    return paths[0] if paths else None


def _read_coco(
    name: str,
    root: Path,
    files: Mapping[str, Path],
    image_folders: Callable[[Path], list[Path]],
    report: Report,
) -> Layout:
    root = Path(os.path.abspath(root))  # as `_find_image` compares it
    contents = {path: _right_entries(path, report) for path in files.values()}
    if name == "Roboflow COCO":
        _drop_unused_category(contents.values())
    first = next(iter(files.values()))  # of the training images, if there are any
    categories = sorted(contents[first]["categories"], key=lambda c: (str(type(c["id"])), c["id"]))
    class_names = [str(category["name"]) for category in categories]
    if repeated := sorted({x for x in class_names if class_names.count(x) > 1}):
        report(f"{first}: several categories are named {repeated[0]!r}: give each its own name")
    splits: dict[str, list[Photo]] = {}
    for split, path in files.items():
        content = contents[path]
        objects = _coco_objects(path, content, class_names, report)
        splits[split] = []
        known: dict[Path, Any] = {}
        for image in content["images"]:
            found = _find_image(image["file_name"], image_folders(path), root)
            where = f"{path}: image {image['id']}"
            if found is None:
                report(f"{where}: file {image['file_name']!r} is in none of its image folders")
                continue
            if known.setdefault(found, image["id"]) != image["id"]:
                report(
                    f"{where}: its file {found} is also that of image {known[found]}: give each "
                    "image one entry and a file of its own"
                )
                continue
            photo = open_photo(found, objects.get(image["id"], []), report, path)
            if photo and (photo.width, photo.height) != (image["width"], image["height"]):
                report(
                    f"{where} is said to be {image['width']}x{image['height']}, but {found} is "
                    f"{photo.width}x{photo.height} (turned as its EXIF data say): correct the entry"
                )
            elif photo:
                splits[split].append(photo)
    return Layout(name, class_names, splits)


def _right_entries(path: Path, report: Report) -> dict[str, list[dict]]:
    """Reads a file and reports its wrong entries; returns the others."""
    content = read_coco_json(path, str(path))
    wrong = set()
    for key, position, problem in wrong_entries(content):
        report(f"{path}: {problem}")
        wrong.add((key, position))
    return {
        key: [x for i, x in enumerate(content[key]) if (key, i) not in wrong]
        for key in ("images", "annotations", "categories")
    }


def _drop_unused_category(contents: Collection[dict[str, list[dict]]]) -> None:
    """Drops category 0, and keeps it if an object has it or it is the only one."""
    used = any(entry["category_id"] == 0 for c in contents for entry in c["annotations"])
    for content in contents:
        others = [category for category in content["categories"] if category["id"] != 0]
        if others and not used:
            content["categories"] = others


def _coco_objects(
    path: Path, content: dict, class_names: list[str], report: Report
) -> dict[Any, list[dict]]:
    """Returns the objects of each image id."""
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    kept = ("bbox", "area", "iscrowd", "segmentation")
    objects: dict[Any, list[dict]] = {}
    unknown = set()
    for annotation in content["annotations"]:
        name = names.get(annotation["category_id"])
        if name is None:  # of a category with a wrong entry, which is reported
            continue
        if name not in class_names:
            unknown.add(name)
            continue
        entry = {key: annotation[key] for key in kept if annotation.get(key) is not None}
        if not valid_segmentation(entry.get("segmentation")):
            entry.pop("segmentation", None)  # an empty one, of exporters of boxes
        entry.update(category_id=class_names.index(name), id=annotation["id"])
        objects.setdefault(annotation["image_id"], []).append(entry)
    for name in sorted(unknown):
        report(f"{path}: objects of category {name!r}, which the training images do not have")
    return objects


def _find_image(name: str, folders: Sequence[Path], root: Path) -> Path | None:
    """Returns the first file of that name in one of the folders, and not outside the data."""
    # Tools write file names with folders that only they have.
    for candidate in dict.fromkeys([name, re.split(r"[/\\]", name)[-1]]):
        for folder in folders:
            path = Path(os.path.abspath(folder / candidate))
            if path.is_file() and path.is_relative_to(root):
                return path
    return None


def open_photo(
    path: Path, objects: list[dict], report: Report, labels: Path | None = None
) -> Photo | None:
    """Reads an image's size; reports a file that is no image, and returns None."""
    try:
        with open(path, "rb") as file, opened(file) as image:
            width, height = shown_size(image)
    except (OSError, SyntaxError, ValueError) as error:
        report(f"{path}: cannot be read as an image ({error}): replace or remove it")
        return None
    return Photo(path, width, height, objects, labels)


def read_text(path: Path) -> str:
    """Reads a text file.

    Raises:
        ValueError: if it is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: it is no text in UTF-8 ({error}): save it as such") from error


def images_in(folder: Path) -> list[Path]:
    """Returns the image files in a folder and below, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
