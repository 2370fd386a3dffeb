"""Datasets and loaders. Importing this package registers digits_* and bccd_* with Detectron2."""

import os
from pathlib import Path

from lad.data.coco import build_coco_evaluator, register_coco
from lad.data.dataset_dicts import get_dataset_dicts
from lad.data.digits import DigitScenesSpec, register_digit_scenes
from lad.data.folders import read_folder, write_coco_files
from lad.data.images import ImageMapper
from lad.data.loader import build_evaluation_loader, build_train_loader
from lad.data.unlabeled import unlabeled_images

__all__ = [
    "DigitScenesSpec",
    "ImageMapper",
    "build_coco_evaluator",
    "build_evaluation_loader",
    "build_train_loader",
    "get_dataset_dicts",
    "read_folder",
    "register_coco",
    "register_digit_scenes",
    "unlabeled_images",
    "write_coco_files",
]


def _register_built_in_datasets(root: Path) -> None:
    register_digit_scenes("digits", root / "digits", DigitScenesSpec())
    for split in ("train", "val"):
        register_coco(
            f"bccd_{split}", root / "bccd/annotations" / f"{split}.json", root / "bccd/images"
        )


_register_built_in_datasets(Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser())
