"""Annotation files in COCO's instances format: reading, and what is wrong in them."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Floating-point numbers, in which evaluations keep ids, are exact up to here.
MAX_ID = 2**53


def read_coco_json(json_file: str | os.PathLike, where: str) -> dict:
    """Reads the lists of an annotation file; `wrong_entries` checks what they hold.

    Args:
        json_file: in COCO's instances format.
        where: how errors name the file.

    Raises:
        ValueError: if it is not json, or has no list of images, annotations or categories.
    """
    content = load_json(json_file, where)
    check_lists(content, where)
    return content


def load_json(json_file: str | os.PathLike, where: str) -> dict:
    """Reads a file that holds a JSON object; raises ValueError if it does not."""
    try:
        content = json.loads(Path(json_file).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not a json file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds no COCO annotations")
    return content


def check_lists(content: dict, where: str) -> None:
    """Raises ValueError if a list of COCO's instances format is missing, or empty."""
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(
                f"{where} has no list {key!r}; COCO's instances format needs 'images', "
                "'annotations' and 'categories'"
            )
        # Annotations may be empty: a dataset of backgrounds.
        if key != "annotations" and not content[key]:
            raise ValueError(f"{where} has an empty list {key!r}")


class WrongEntry(NamedTuple):
    """An entry of an annotation file that cannot be used.

    Attributes:
        key: the list that it is in.
        position: in that list.
        problem: in words.
    """

    key: str
    position: int
    problem: str


def wrong_entries(content: dict) -> Iterator[WrongEntry]:
    """Yields entries that lack a key, have a wrong value or id, or name an unknown id."""
    complete: dict[str, list[tuple[int, dict]]] = {}
    for key, needed in (
        ("images", ("id", "file_name", "height", "width")),
        ("categories", ("id", "name")),
        ("annotations", ("id", "image_id", "category_id", "bbox")),
    ):
        complete[key] = []
        for position, entry in enumerate(content[key]):
            has = entry if isinstance(entry, dict) else {}
            if missing := [k for k in needed if k not in has]:
                yield WrongEntry(key, position, f"{key}[{position}] has no {missing[0]!r}")
            elif wrong := [k for k in needed if k.endswith("id") and not _is_id(has[k])]:
                problem = (
                    f"{key}[{position}] has {wrong[0]} {_shown(has[wrong[0]])}, which is no id"
                )
                yield WrongEntry(key, position, problem)
            else:
                complete[key].append((position, entry))
    for position, image in complete["images"]:
        if problem := _image_problem(image):
            yield WrongEntry("images", position, f"images[{position}] has a {problem}")
    for position, category in complete["categories"]:
        if not isinstance(category["name"], str | int | float):
            problem = f"categories[{position}] has a name that is no text"
            yield WrongEntry("categories", position, problem)
    for key, entries in complete.items():
        ids: set = set()
        for position, entry in entries:
            if entry["id"] in ids:
                problem = (
                    f"{key}[{position}] has id {_shown(entry['id'])}, which another entry has too"
                )
                yield WrongEntry(key, position, problem)
            ids.add(entry["id"])
    yield from _wrong_annotations(complete)


def _image_problem(image: dict) -> str:
    name = image["file_name"]
    if not isinstance(name, str) or not name.strip() or min(name) < " ":
        return "file_name that is no text"
    sizes = image["height"], image["width"]
    if not all(_is_number(x) and math.isfinite(x) and x >= 1 and x == int(x) for x in sizes):
        return "height or width that is no number of pixels"
    return ""


def _wrong_annotations(complete: dict[str, list[tuple[int, dict]]]) -> Iterator[WrongEntry]:
    known = {
        "image_id": {image["id"] for _, image in complete["images"]},
        "category_id": {category["id"] for _, category in complete["categories"]},
    }
    for position, annotation in complete["annotations"]:
        problems = [
            f"{key} {_shown(annotation[key])}, which the file does not define"
            for key, ids in known.items()
            if annotation[key] not in ids
        ]
        for problem in [*problems, *_annotation_problems(annotation)]:
            text = f"annotation {_shown(annotation['id'])} has {problem}"
            yield WrongEntry("annotations", position, text)


def _annotation_problems(annotation: dict) -> Iterator[str]:
    box, area = annotation["bbox"], annotation.get("area")
    if not isinstance(box, list) or not len(box) == 4 == sum(map(_is_number, box)):
        yield f"bbox {_shown(box)}, not four numbers x, y, width, height"
    if area is not None and not _is_number(area):
        yield f"area {_shown(area)}, which is no number of pixels"
    if annotation.get("iscrowd") not in (None, 0, 1):
        yield f"iscrowd {_shown(annotation['iscrowd'])}, which is neither 0 nor 1"
    if annotation.get("ignore"):
        yield "ignore set, which is not supported: set iscrowd to 1 or remove the entry"
    if not _is_segmentation(annotation.get("segmentation")):
        yield "a segmentation that is neither a list of polygons nor run lengths"


def _is_segmentation(value: object) -> bool:
    """Whether a value is none, a list of lists of numbers, or has COCO's counts and size."""
    if not value:
        return True
    if isinstance(value, list):
        return all(isinstance(x, list) and all(map(_is_number, x)) for x in value)
    if not isinstance(value, dict):
        return False
    counts, size = value.get("counts"), value.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(map(_is_whole, size)):
        return False
    return isinstance(counts, str) or (isinstance(counts, list) and all(map(_is_whole, counts)))


def _is_id(value: object) -> bool:
    return _is_whole(value) or isinstance(value, str)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    if isinstance(value, int):  # json's whole numbers have no limit
        return not isinstance(value, bool) and abs(value) <= MAX_ID
    return isinstance(value, float)


def _shown(value: object) -> str:
    """Returns a value for an error line, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_evaluable(content: dict) -> None:
    """Checks what an evaluation needs beyond `wrong_entries`, which found nothing.

    Raises:
        ValueError: for ids of images and classes that are no whole numbers, or two classes of one
            name.
    """
    for key in ("images", "categories"):
        for position, entry in enumerate(content[key]):
            if not _is_whole(entry["id"]) or abs(entry["id"]) > MAX_ID:
                raise ValueError(
                    f"{key}[{position}] has id {_shown(entry['id'])}, which is no whole number "
                    "up to 2^53: number the entries"
                )
    names: set[str] = set()
    for category in content["categories"]:
        name = str(category["name"])
        if name in names:
            raise ValueError(f"several categories are named {name!r}: give each its own name")
        names.add(name)
