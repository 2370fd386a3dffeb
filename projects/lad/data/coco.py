"""Registration and evaluation of datasets in COCO's json format."""

import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.evaluation import COCOEvaluator, coco_evaluation


def register_coco(name: str, json_file: str | os.PathLike, image_root: str | os.PathLike) -> None:
    """Registers a dataset in COCO's instances format with Detectron2's catalogs.

    The files are read when the dataset is loaded. Registering them again under the same name does
    nothing, so a config file that calls this can be loaded twice.

    Args:
        name: the dataset's name in configs.
        json_file: annotations with "images", "annotations" and "categories".
        image_root: folder that the "file_name" entries are relative to.

    Raises:
        ValueError: if ``name`` stands for another dataset already.
    """
    json_file, image_root = str(json_file), str(image_root)
    metadata = MetadataCatalog.get(name)
    if name in DatasetCatalog.list():
        known = (metadata.get("json_file"), metadata.get("image_root"))
        if known != (json_file, image_root):
            raise ValueError(
                f"dataset {name!r} is registered already, with json_file {known[0]} and image_root "
                f"{known[1]}: choose another name"
            )
        return
    DatasetCatalog.register(name, partial(_load_coco, name, json_file, image_root))
    metadata.set(json_file=json_file, image_root=image_root, evaluator_type="coco")


def register_json_path(name: str) -> None:
    """Registers a dataset whose name is the path of a COCO json file, unless it is registered.

    A "file_name" in it is absolute, or relative to the file's folder.
    """
    if name.endswith(".json") and name not in DatasetCatalog.list():
        register_coco(name, name, os.path.dirname(name))


def _load_coco(name: str, json_file: str, image_root: str) -> list[dict]:
    _check_coco_json(name, json_file)
    return load_coco_json(json_file, image_root, name)


def remedy(path: str | os.PathLike) -> str:
    """Returns what to do about a missing file, for an error line."""
    root = os.path.abspath(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))
    if os.path.commonpath([root, os.path.abspath(path)]) != root:
        return "put it there or correct the path"
    return (
        "put it there or set the environment variable DETECTRON2_DATASETS to the folder that holds "
        "your datasets"
    )


def _check_coco_json(name: str, json_file: str) -> None:
    """Checks an annotation file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not json, or an entry that training needs is missing or undefined.
    """
    if not Path(json_file).is_file():
        raise FileNotFoundError(
            f"dataset {name!r}: annotation file {json_file} does not exist; {remedy(json_file)}"
        )
    where = f"dataset {name!r}: {json_file}"
    for entry in wrong_entries(read_coco_json(json_file, where)):
        raise ValueError(f"{where}: {entry.problem}")


def read_coco_json(json_file: str | os.PathLike, where: str) -> dict:
    """Reads the lists of an annotation file; `wrong_entries` checks what they hold.

    Args:
        json_file: in COCO's instances format.
        where: how errors name the file.

    Raises:
        ValueError: if it is not json, or has no list of images, annotations or categories.
    """
    try:
        content = json.loads(Path(json_file).read_bytes())
    except ValueError as error:
        raise ValueError(f"{where} is not a json file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds no COCO annotations")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(
                f"{where} has no list {key!r}; COCO's instances format needs 'images', "
                "'annotations' and 'categories'"
            )
        # Annotations may be empty: a dataset of backgrounds.
        if key != "annotations" and not content[key]:
            raise ValueError(f"{where} has an empty list {key!r}")
    return content


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
                problem = f"{key}[{position}] has {wrong[0]} {has[wrong[0]]}, which is no id"
                yield WrongEntry(key, position, problem)
            else:
                complete[key].append((position, entry))
    for position, image in complete["images"]:
        if not isinstance(image["file_name"], str):
            yield WrongEntry(
                "images", position, f"images[{position}] has a file_name that is no text"
            )
        if not (_is_number(image["height"]) and _is_number(image["width"])):
            problem = f"images[{position}] has a height or width that is no number"
            yield WrongEntry("images", position, problem)
    for key, entries in complete.items():
        ids: set = set()
        for position, entry in entries:
            if entry["id"] in ids:
                problem = f"{key}[{position}] has id {entry['id']}, which another entry has too"
                yield WrongEntry(key, position, problem)
            ids.add(entry["id"])
    yield from _wrong_annotations(complete)


def _wrong_annotations(complete: dict[str, list[tuple[int, dict]]]) -> Iterator[WrongEntry]:
    known = {
        "image_id": {image["id"] for _, image in complete["images"]},
        "category_id": {category["id"] for _, category in complete["categories"]},
    }
    for position, annotation in complete["annotations"]:
        where = f"annotation {annotation['id']} has"
        for key, ids in known.items():
            if annotation[key] not in ids:
                problem = f"{where} {key} {annotation[key]}, which the file does not define"
                yield WrongEntry("annotations", position, problem)
        box = annotation["bbox"]
        if not isinstance(box, list) or not len(box) == 4 == sum(map(_is_number, box)):
            problem = f"{where} bbox {box}, not four numbers x, y, width, height"
            yield WrongEntry("annotations", position, problem)


def _is_id(value: object) -> bool:
    return isinstance(value, int | str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def build_coco_evaluator(
    dataset_name: str,
    output_dir: str | None = None,
    distributed: bool = True,
    tasks: Sequence[str] = ("bbox",),
) -> COCOEvaluator:
    """Builds Detectron2's COCO evaluator, at most 100 detections per image.

    It uses faster-coco-eval, whose numbers equal pycocotools', or pycocotools without it.

    Args:
        dataset_name: a registered dataset with metadata ``json_file``, or a path of a COCO json.
        output_dir: folder for the predictions; None writes none.
        distributed: whether to gather the predictions of all ranks.
        tasks: "bbox" for boxes, "segm" for instance masks.

    Raises:
        KeyError: if ``dataset_name`` is not registered.
        FileNotFoundError: if the annotation file does not exist.
    """
    register_json_path(dataset_name)
    if not hasattr(MetadataCatalog.get(dataset_name), "thing_dataset_id_to_contiguous_id"):
        # Loading sets the category ids, generates digit scenes, and reports missing files.
        DatasetCatalog.get(dataset_name)
    evaluator = COCOEvaluator(
        dataset_name,
        tasks=tuple(tasks),
        distributed=distributed,
        output_dir=output_dir,
        max_dets_per_image=100,
        use_fast_impl=_use_faster_coco_eval(),
    )
    # pycocotools needs both keys; Detectron2's training does not, and many tools do not write them.
    for annotation in evaluator._coco_api.dataset.get("annotations", []):
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    return evaluator


def _use_faster_coco_eval() -> bool:
    """Replaces Detectron2's compiled evaluation by faster-coco-eval, if that is installed."""
    try:
        from faster_coco_eval.core.faster_eval_api import COCOeval_faster
    except ImportError:
        return False
    coco_evaluation.COCOeval_opt = COCOeval_faster
    return True
