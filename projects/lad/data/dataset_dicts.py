"""Loading and checking of registered datasets."""

import difflib
import logging
import os
from collections import Counter
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.structures import BoxMode

from lad.data.coco import register_json_path, remedy
from lad.data.normalize import clipped_box

logger = logging.getLogger(__name__)

SHOWN = 10  # classes in a line of the log


def get_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    part: Sequence[int] | None = None,
    outside_root: bool = False,
) -> list[dict]:
    """Loads dataset dicts as `load_dataset_dicts`, and logs how many objects of each class."""
    dicts = load_dataset_dicts(names, filter_empty, part, outside_root)
    _log_counts(dicts, [names] if isinstance(names, str) else list(names))
    return dicts


def load_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    part: Sequence[int] | None = None,
    outside_root: bool = False,
) -> list[dict]:
    """Loads dataset dicts as Detectron2's ``get_detection_dataset_dicts`` and checks them.

    Boxes without area inside their image are dropped with a warning.

    Args:
        names: one registered dataset, or several to join; a path of a COCO json file is a name too.
        filter_empty: drop images without any annotation other than crowd regions.
        part: (first, step) takes every step-th image from this one on: (0, 2) and (1, 2) are two
            halves. None takes all.
        outside_root: whether images may lie outside the folder of the dataset's images.

    Raises:
        ValueError: if a name is not registered, a part is none, an image lies outside, or nothing
            is left to load.
        FileNotFoundError: if annotations or images do not exist.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError(
            "no dataset is named: set dataset.names to one or more registered datasets"
        )
    for name in names:
        _check_registered(name)
    try:
        dicts = get_detection_dataset_dicts(names=names, filter_empty=False)
    except FileNotFoundError as error:
        if error.filename is None:  # the message is ours already
            raise
        raise FileNotFoundError(
            f"dataset {', '.join(names)}: {error.filename} does not exist; {remedy(error.filename)}"
        ) from error
    if not outside_root:
        _check_inside_root(dicts, names)
    if part is not None:
        dicts = dicts[_part(part)]
    _check_images_exist(dicts, names)
    if dicts and "annotations" in dicts[0]:
        dicts = _drop_boxes_without_area(dicts, names)
        if filter_empty:
            dicts = filter_images_with_only_crowd_annotations(dicts)
    if not dicts:
        raise ValueError(
            f"dataset {', '.join(names)} has no image with a usable annotation; filter_empty=False "
            "keeps images without objects"
        )
    return dicts


def _log_counts(dicts: list[dict], names: list[str]) -> None:
    """Logs how many images, objects and objects of each class there are, the most first."""
    classes = MetadataCatalog.get(names[0]).get("thing_classes")
    counts = Counter(
        x["category_id"] for record in dicts for x in record.get("annotations", ()) if classes
    )
    text = f"Dataset {', '.join(names)}: {len(dicts)} images"
    if classes:
        shown = [f"{classes[number]} {count}" for number, count in counts.most_common(SHOWN)]
        shown += ["..."] * (len(counts) > SHOWN)
        shown += [f"none of {', '.join(x for i, x in enumerate(classes) if not counts[i])}"] * (
            0 < len(classes) - len(counts) <= SHOWN
        )
        text += f", {counts.total()} objects ({', '.join(shown)})"
    logger.info(text)


def _part(part: Sequence[int]) -> slice:
    if len(part) != 2 or not all(isinstance(x, int) for x in part) or not 0 <= part[0] < part[1]:
        raise ValueError(f"dataset.part={list(part)}: give [first, step] with 0 <= first < step")
    return slice(part[0], None, part[1])


def _check_registered(name: str) -> None:
    register_json_path(name)
    known = DatasetCatalog.list()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        raise ValueError(
            f"dataset {name!r} is not registered: {hint} "
            "(your own: the path of a COCO json file, or lad.data.register_coco)"
        )


def _check_inside_root(dicts: list[dict], names: list[str]) -> None:
    """Raises ValueError for an image that an annotation file places outside its image folder."""
    given = [MetadataCatalog.get(name).get("image_root") for name in names]
    if any(root is None or "://" in root for root in given):
        return
    roots = tuple(os.path.join(os.path.abspath(root), "") for root in given)
    for record in dicts:
        path = os.path.abspath(record["file_name"])
        if not path.startswith(roots):
            raise ValueError(
                f"dataset {', '.join(names)}: image {record['file_name']} is outside the image "
                f"folder {roots[0]}: correct its file_name, or set outside_root=true beside the "
                "dataset's names if you trust the file"
            )


def _check_images_exist(dicts: list[dict], names: list[str]) -> None:
    """Raises FileNotFoundError with the number of missing images and the first of them."""
    # One listing per folder: checking 100,000 files takes minutes on a network disk.
    listings: dict[str, set[str]] = {}
    missing = []
    for record in dicts:
        folder, name = os.path.split(record["file_name"])
        if "://" in folder:  # a remote path of Detectron2's PathManager
            continue
        if folder not in listings:
            exists = os.path.isdir(folder or ".")
            listings[folder] = set(os.listdir(folder or ".")) if exists else set()
        if name not in listings[folder]:
            missing.append(record["file_name"])
    if missing:
        raise FileNotFoundError(
            f"dataset {', '.join(names)}: {len(missing)} of {len(dicts)} images do not exist, the "
            f"first is {missing[0]}; put them there or correct the annotations"
        )


def _drop_boxes_without_area(dicts: list[dict], names: list[str]) -> list[dict]:
    kept_dicts = []
    num_dropped = 0
    for record in dicts:
        kept = [a for a in record["annotations"] if _has_area(a, record["width"], record["height"])]
        num_dropped += len(record["annotations"]) - len(kept)
        kept_dicts.append({**record, "annotations": kept})
    if num_dropped:
        logger.warning(
            "Dataset %s: dropped %d boxes that have no area inside their image.",
            ", ".join(names),
            num_dropped,
        )
    return kept_dicts


def _has_area(annotation: dict, width: int, height: int) -> bool:
    """Whether the box, clipped to the image, has an area; False if it is not finite."""
    box = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS)
    return clipped_box(box, (width, height)) is not None
