"""Images without labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from lad.data.dataset_dicts import load_dataset_dicts
from lad.data.layouts import Photo, images_in, open_photo
from lad.data.loader import Unlabeled

logger = logging.getLogger(__name__)


def unlabeled_images(
    names: str | Sequence[str] | None = None,
    ratio: float = 1.0,
    part: Sequence[int] | None = None,
    outside_root: bool = False,
) -> Unlabeled | None:
    """Loads the images of datasets and drops their labels.

    Args:
        names: as for `load_dataset_dicts`; none for no images.
        ratio: unlabeled images per labeled image of a batch.
        part: as for `load_dataset_dicts`.
        outside_root: as for `load_dataset_dicts`.

    Returns:
        The images, None if there are none to load.

    Raises:
        ValueError: for a negative ratio, or datasets that cannot be used.
        FileNotFoundError: if annotations or images do not exist.
    """
    if ratio < 0:
        raise ValueError(f"dataloader.train.unlabeled.ratio={ratio}: it has to be 0 or more")
    if not names or not ratio:
        return None
    records = load_dataset_dicts(names, filter_empty=False, part=part, outside_root=outside_root)
    logger.info(f"Unlabeled: {len(records)} images, {ratio:g} per labeled image of a batch")
    dropped = {"annotations", "sem_seg_file_name", "proposal_boxes"}
    bare = [{k: v for k, v in record.items() if k not in dropped} for record in records]
    return Unlabeled([{**record, "unlabeled": True} for record in bare], ratio)


def read_unlabeled(folder: str | os.PathLike) -> list[Photo]:
    """Returns the images in a folder and below, without objects.

    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
        ValueError: if a file is no image.
    """
    folder = Path(os.path.abspath(Path(folder).expanduser()))
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    photos = [open_photo(path, [], _stop) for path in images_in(folder)]
    if not photos:
        raise FileNotFoundError(f"{folder}: there are no images in it")
    return [photo for photo in photos if photo]


def _stop(problem: str) -> None:
    raise ValueError(problem)
