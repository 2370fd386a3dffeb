"""Names of classes, from wherever people have them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from lad.data.layouts import read_text
from lad.data.yolo import read_names


def read_class_names(source: str | Sequence[str], key: str) -> list[str]:
    """Returns the names of classes in their order.

    Args:
        source: the names; or a registered dataset; or a file: .txt with a name per line, .json with
            a list of names or COCO's "categories" (in the order of their ids), .yaml with YOLO's
            ``names``.
        key: where the source stands, for messages.

    Raises:
        ValueError: if it is none of these, or holds no names.
        FileNotFoundError: if a file does not exist.
    """
    if not isinstance(source, str):
        names = [str(name) for name in source]
    elif source in DatasetCatalog.list():
        names = _names_of_dataset(source)
    elif source.endswith((".txt", ".json", ".yaml", ".yml")):
        if not os.path.isfile(source):
            raise FileNotFoundError(f"{key}={source}: there is no such file")
        names = _names_of_file(Path(source))
    else:
        raise ValueError(
            f"{key}={source}: it is no registered dataset and no .txt, .json or .yaml file; list "
            "the names, [cat,dog]"
        )
    if not names:
        raise ValueError(f"{key}={source}: it holds no names of classes")
    return names


def trained_classes(folder: str) -> tuple[str, list[str]] | None:
    """Returns the training data's file in the folder of a run with ``--data``, and its classes.

    None for "" and for other folders.
    """
    file = os.path.join(folder, "data", "train.json")
    return (file, read_class_names(file, file)) if folder and os.path.isfile(file) else None


def _names_of_dataset(name: str) -> list[str]:
    if MetadataCatalog.get(name).get("thing_classes") is None:
        DatasetCatalog.get(name)  # loading a dataset sets its metadata
    return list(MetadataCatalog.get(name).get("thing_classes") or ())


def _names_of_file(file: Path) -> list[str]:
    if file.suffix == ".txt":
        return [name for line in read_text(file).splitlines() if (name := line.strip())]
    if file.suffix != ".json":
        return read_names(file)
    try:
        content = json.loads(read_text(file))
        if isinstance(content, dict):
            categories = sorted(content["categories"], key=lambda c: (str(type(c["id"])), c["id"]))
            content = [category["name"] for category in categories]
        if not isinstance(content, list):
            raise TypeError
        return [str(name) for name in content]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: it holds neither a list of names nor COCO's categories with id and name"
        ) from error
