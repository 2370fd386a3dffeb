"""Registration and evaluation of datasets in COCO's json format."""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

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


def _load_coco(name: str, json_file: str, image_root: str) -> list[dict]:
    _check_coco_json(name, json_file)
    return load_coco_json(json_file, image_root, name)


def _check_coco_json(name: str, json_file: str) -> None:
    """Checks an annotation file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not json, or an entry that training needs is missing or undefined.
    """
    if not Path(json_file).is_file():
        raise FileNotFoundError(
            f"dataset {name!r}: annotation file {json_file} does not exist; put it there or set "
            "the environment variable DETECTRON2_DATASETS to the folder that holds your datasets"
        )
    try:
        content = json.loads(Path(json_file).read_bytes())
    except ValueError as error:
        raise ValueError(f"dataset {name!r}: {json_file} is not a json file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"dataset {name!r}: {json_file} holds no COCO annotations")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(
                f"dataset {name!r}: {json_file} has no list {key!r}; COCO's instances format needs "
                "'images', 'annotations' and 'categories'"
            )
        # Annotations may be empty: a dataset of backgrounds.
        if key != "annotations" and not content[key]:
            raise ValueError(f"dataset {name!r}: {json_file} has an empty list {key!r}")
    _check_references(f"dataset {name!r}: {json_file}", content)


def _check_references(where: str, content: dict) -> None:
    """Raises ValueError if an entry lacks a key, names an unknown id or has a wrong value."""
    for key, needed in (
        ("images", ("id", "file_name", "height", "width")),
        ("categories", ("id", "name")),
        ("annotations", ("id", "image_id", "category_id", "bbox")),
    ):
        for position, entry in enumerate(content[key]):
            missing = [k for k in needed if k not in entry]
            if missing:
                raise ValueError(f"{where}: {key}[{position}] has no {missing[0]!r}")
    for position, image in enumerate(content["images"]):
        if not (_is_number(image["height"]) and _is_number(image["width"])):
            raise ValueError(f"{where}: images[{position}] has a height or width that is no number")
    ids = [annotation["id"] for annotation in content["annotations"]]
    if len(set(ids)) < len(ids):
        raise ValueError(f"{where}: several annotations have the same id")
    image_ids = {image["id"] for image in content["images"]}
    category_ids = {category["id"] for category in content["categories"]}
    for annotation in content["annotations"]:
        for key, known in (("image_id", image_ids), ("category_id", category_ids)):
            if annotation[key] not in known:
                raise ValueError(
                    f"{where}: annotation {annotation['id']} has {key} {annotation[key]}, which "
                    "the file does not define"
                )
        box = annotation["bbox"]
        if not isinstance(box, list) or not len(box) == 4 == sum(map(_is_number, box)):
            raise ValueError(
                f"{where}: annotation {annotation['id']} has bbox {annotation['bbox']}, not four "
                "numbers x, y, width, height"
            )


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
        dataset_name: a registered dataset with metadata ``json_file``.
        output_dir: folder for the predictions; None writes none.
        distributed: whether to gather the predictions of all ranks.
        tasks: "bbox" for boxes, "segm" for instance masks.

    Raises:
        KeyError: if ``dataset_name`` is not registered.
        FileNotFoundError: if the annotation file does not exist.
    """
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
