"""Registration and evaluation of datasets in COCO's json format."""

import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.evaluation import COCOEvaluator, coco_evaluation
from detectron2.utils.file_io import PathManager

from lad.data.annotations import load_json
from lad.data.normalize import checked, read_as

logger = logging.getLogger(__name__)


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
    where = f"dataset {name!r}"
    content, changes = checked(_load_json(where, json_file), f"{where}: {json_file}")
    for change in changes:
        logger.warning(f"{where}: {change}")
    with read_as(content):
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


def _load_json(where: str, json_file: str) -> dict:
    """Reads an annotation file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is no json.
    """
    if not Path(json_file).is_file():
        raise FileNotFoundError(
            f"{where}: annotation file {json_file} does not exist; {remedy(json_file)}"
        )
    return load_json(json_file, f"{where}: {json_file}")


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
    metadata = MetadataCatalog.get(dataset_name)
    if not hasattr(metadata, "thing_dataset_id_to_contiguous_id"):
        # Loading sets the category ids, generates digit scenes, and reports missing files.
        DatasetCatalog.get(dataset_name)
    json_file = metadata.get("json_file")
    with nullcontext() if json_file is None else read_as(_ground_truth(dataset_name, json_file)):
        return COCOEvaluator(
            dataset_name,
            tasks=tuple(tasks),
            distributed=distributed,
            output_dir=output_dir,
            max_dets_per_image=100,
            use_fast_impl=_use_faster_coco_eval(),
        )


def _ground_truth(name: str, json_file: str) -> dict:
    """Returns the objects that training sees; without annotations the file as it is."""
    where = f"dataset {name!r}"
    content = _load_json(where, PathManager.get_local_path(json_file))
    if "annotations" not in content:  # the images of COCO's server
        return content
    return checked(content, f"{where}: {json_file}").content


def _use_faster_coco_eval() -> bool:
    """Replaces Detectron2's compiled evaluation by faster-coco-eval, if that is installed."""
    try:
        from faster_coco_eval.core.faster_eval_api import COCOeval_faster
    except ImportError:
        return False
    coco_evaluation.COCOeval_opt = COCOeval_faster
    return True
