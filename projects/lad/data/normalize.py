"""One view of an annotation file for training and evaluation: the same objects, the same boxes."""

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pycocotools.coco
from detectron2.evaluation import coco_evaluation

from lad.data.annotations import check_evaluable, check_lists, wrong_entries

ROUNDING = 1.0  # pixels by which a box may leave its image without being counted


class Normalized(NamedTuple):
    """What a file holds, as training and evaluation see it.

    Attributes:
        content: the lists of COCO's instances format. Ids of images and categories are the file's.
        changes: lines about what was left out or changed; empty for ordinary files.
    """

    content: dict[str, Any]
    changes: list[str]


def checked(content: dict[str, Any], where: str) -> Normalized:
    """Checks the content of an annotation file, and normalizes it as `normalize`.

    Args:
        content: of the file.
        where: how errors name it.

    Raises:
        ValueError: if a list is missing, or an entry is wrong.
    """
    check_lists(content, where)
    for entry in wrong_entries(content):
        raise ValueError(f"{where}: {entry.problem}")
    try:
        check_evaluable(content)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return normalize(content)


def normalize(content: dict[str, Any]) -> Normalized:
    """Returns a checked file's content as training and evaluation are to see it.

    - Annotations are numbered from 1, in their order: evaluations take id 0 for "no object".
    - Boxes are clipped that leave their image by more than a pixel, as training clips them; those
      that leave it by less, as rounding makes them, stay.
    - Objects are left out whose box has no area inside its image or is not finite, or whose
      segmentation has no polygon of three points.
    - A missing, negative or infinite area is that of the box, a missing iscrowd 0.

    Example: in an image of 64x48, the box (60, 10, 20, 10) becomes (60, 10, 4, 10), and
    (70, 10, 20, 10) is left out.
    """
    images = [
        {**x, "height": int(x["height"]), "width": int(x["width"])} for x in content["images"]
    ]
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    annotations: list[dict] = []
    left_out: list[Any] = []
    clipped: list[Any] = []
    no_area: list[Any] = []
    for entry in content["annotations"]:
        size = sizes[entry["image_id"]]
        box = clipped_box(entry["bbox"], size)
        segmentation = valid_segmentation(entry.get("segmentation"))
        if box is None or (entry.get("segmentation") and not segmentation):
            left_out.append(entry["id"])
            continue
        area = entry.get("area")
        if area is not None and not 0 <= area < math.inf:
            no_area.append(entry["id"])
            area = None
        if leaves(entry["bbox"], size):
            clipped.append(entry["id"])
            area = None if area is None else min(area, box[2] * box[3])
        else:
            box = entry["bbox"]
        annotations.append(
            {
                **entry,
                "id": len(annotations) + 1,
                "bbox": box,
                "area": box[2] * box[3] if area is None else area,
                "iscrowd": int(entry.get("iscrowd") or 0),
                "segmentation": segmentation,
            }
        )
        if not segmentation:
            del annotations[-1]["segmentation"]
    categories = [{**x, "name": str(x["name"])} for x in content["categories"]]
    total = len(content["annotations"])
    changes = _counted("objects without area inside their image are left out", left_out, total)
    changes += _counted("boxes that leave their image are clipped", clipped, total)
    changes += _counted("areas that cannot be are replaced by those of their boxes", no_area, total)
    lists = {"images": images, "annotations": annotations, "categories": categories}
    return Normalized({**content, **lists}, changes)


def clipped_box(box: Sequence[float], size: tuple[int, int]) -> list[float] | None:
    """Returns a box (x, y, width, height) clipped to an image (width, height) in pixels.

    None if no area is left, or it is not finite.
    """
    x, y, width, height = box
    left, right = max(x, 0), min(x + width, size[0])
    top, bottom = max(y, 0), min(y + height, size[1])
    if not all(map(math.isfinite, box)) or right <= left or bottom <= top:
        return None
    return [left, top, right - left, bottom - top]


def leaves(box: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether a box (x, y, width, height) is more than a rounding error outside its image."""
    x, y, width, height = box
    return max(-x, -y, x + width - size[0], y + height - size[1]) > ROUNDING


def valid_segmentation(value: Any) -> Any:
    """Returns run lengths, or the polygons that have three points."""
    if isinstance(value, list):
        return [polygon for polygon in value if len(polygon) % 2 == 0 and len(polygon) >= 6]
    return value


def _counted(what: str, ids: Sequence[Any], total: int) -> list[str]:
    return [f"{what}: {len(ids)} of {total}, the first is annotation {ids[0]}"] if ids else []


@contextlib.contextmanager
def read_as(content: dict[str, Any]) -> Iterator[None]:
    """Makes Detectron2 get this content from whatever annotation file it reads."""

    def api(_file: str) -> pycocotools.coco.COCO:
        made = original()
        made.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            made.createIndex()
        return made

    original = pycocotools.coco.COCO
    pycocotools.coco.COCO = coco_evaluation.COCO = api
    try:
        yield
    finally:
        pycocotools.coco.COCO = coco_evaluation.COCO = original
