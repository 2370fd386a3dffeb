"""Own data: what --data FOLDER sets in a config."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lad.data.check import split_warnings
from lad.data.dataset_dicts import load_dataset_dicts
from lad.data.folders import read_folder
from lad.data.layouts import Layout, Photo
from lad.data.names import trained_classes
from lad.data.unlabeled import read_unlabeled
from lad.engine.box_sizes import BoxSizes
from lad.engine.config import load_config
from lad.engine.fit import REACHED_IOU, fit_settings, fitted_settings
from lad.engine.keys import parameters
from lad.engine.setup import class_keys, dataset_names

UNLABELED = "unlabeled"  # name of a split and of a section
MIN_ITERATIONS = 500  # of a training whose length is given in epochs
NUM_EVALUATIONS = 5  # of such a training


def load_config_with_data(args: argparse.Namespace) -> tuple[DictConfig, Layout]:
    """Loads a config for ``args.data`` and ``args.unlabeled``; overrides win over what they set.

    Args:
        args: of the command line.

    Returns:
        The config and what the folders hold.

    Raises:
        ValueError: if config, overrides or data cannot be used.
        FileNotFoundError: if a file is missing.
    """
    config = load_config(args.config_file, args.opts, trusted=args.trust)
    folder = data_folder(config, args.eval_only)
    layout, settings = Layout("images", [UNLABELED], {}), {}
    if args.data:
        layout = read_folder(args.data)
        _check_masks(config, layout)
        trained = None
        if args.eval_only:
            trained = run_folder(config, resume=args.resume)
            _check_trained_classes(layout, trained)
        settings = data_settings(config, layout, folder, args.opts, trained=trained)
    if args.unlabeled:
        if args.eval_only:
            raise ValueError("--unlabeled is for training: leave it out of an evaluation")
        if OmegaConf.select(config, f"dataloader.train.{UNLABELED}") is None:
            raise ValueError(
                f"--unlabeled: the config has no dataloader.train.{UNLABELED} to set; see "
                "configs/common/data/coco.py"
            )
        if args.data:
            known = {photo.path for photos in layout.splits.values() for photo in photos}
        else:
            names = [*dataset_names(config, "train"), *dataset_names(config, "test")]
            records = load_dataset_dicts(names, filter_empty=False, outside_root=True)
            known = {Path(os.path.abspath(x["file_name"])) for x in records}
        layout.splits[UNLABELED] = unlabeled_photos(args.unlabeled, known)
        key = f"dataloader.train.{UNLABELED}"
        settings |= _dataset(config, key, os.path.join(folder, f"{UNLABELED}.json"))
    return load_config(args.config_file, args.opts, settings, trusted=args.trust), layout


def run_folder(config: DictConfig, *, resume: bool) -> str:
    """Returns the folder of the training that an evaluation takes its weights from."""
    if resume:
        return config.train.output_dir
    return os.path.dirname(config.train.init_checkpoint or "")


def _check_trained_classes(layout: Layout, folder: str) -> None:
    """Raises ValueError if a training with ``--data`` in a folder had other classes."""
    found = trained_classes(folder)
    if found and found[1] != layout.class_names:
        file, trained = found
        raise ValueError(
            f"--data: its classes are {', '.join(layout.class_names)}, those of the training "
            f"{', '.join(trained)} ({file}): give them the same names in the same order"
        )


def unlabeled_photos(folder: str, known: Collection[Path]) -> list[Photo]:
    """Returns the images in a folder that are not known as images of the labeled data.

    Raises:
        ValueError: if none is left, or one cannot be read.
        FileNotFoundError: if there is no such folder.
    """
    found = [photo for photo in read_unlabeled(folder) if photo.path not in known]
    if not found:
        raise ValueError(f"--unlabeled {folder}: all of its images are in the labeled data already")
    return found


def data_folder(config: DictConfig, eval_only: bool) -> str:
    """Returns where a run writes the splits: the names of its datasets are files in it."""
    # An evaluation leaves those of the training.
    return os.path.join(config.train.output_dir, *["inference"] * eval_only, "data")


def data_settings(
    config: DictConfig,
    layout: Layout,
    folder: str,
    overrides: Sequence[str] = (),
    *,
    trained: str | None = None,
) -> dict[str, Any]:
    """Returns the values by key that data need: datasets, classes, sizes, training length.

    Args:
        config: with the overrides.
        layout: of the data.
        folder: of the files "train.json" and "val.json".
        overrides: those of the command line.
        trained: folder of the training that is evaluated, whose sizes are kept; None to train.

    Raises:
        ValueError: if the config's data have no name.
    """
    settings: dict[str, Any] = {key: len(layout.class_names) for key in class_keys(config)}
    for split, name in (("train", "train"), ("test", "val")):
        if not dataset_names(config, split):
            raise ValueError(
                f"--data: the config has no dataloader.{split}.dataset.names to set; use another "
                "config, such as configs/quick/paa.py"
            )
        settings |= _dataset(
            config, f"dataloader.{split}.dataset", os.path.join(folder, f"{name}.json")
        )
    if config.train.get("fit_data") and trained is not None:
        settings |= fitted_settings(config, trained)
    elif config.train.get("fit_data"):
        settings |= fit_settings(config, layout.splits["train"], overrides)
    return settings | _length(config.train, len(layout.splits["train"]), config, overrides)


def _dataset(config: DictConfig, key: str, file: str) -> dict[str, Any]:
    """Returns the values by key that name a file of `write_coco_files`, and trust its paths."""
    known = parameters(OmegaConf.select(config, key))
    trusts = known is None or "outside_root" in known
    return {f"{key}.names": file} | ({f"{key}.outside_root": True} if trusts else {})


def _length(
    train: DictConfig, num_images: int, config: DictConfig, overrides: Sequence[str]
) -> dict[str, int]:
    """Returns the iterations of ``train.epochs`` and the periods that fit them."""
    if not isinstance(train.get("epochs"), int):  # `check_run` reports what else it is
        return {}
    batch_size = config.dataloader.train.total_batch_size * train.accumulate
    max_iter = max(MIN_ITERATIONS, -(-train.epochs * num_images // batch_size))
    if any(override.startswith("train.max_iter=") for override in overrides):
        max_iter = train.max_iter
    period = -(-max_iter // NUM_EVALUATIONS)
    return {
        "train.max_iter": max_iter,
        "train.eval_period": period,
        "train.checkpointer.period": period,
    }


def _check_masks(config: DictConfig, layout: Layout) -> None:
    if not OmegaConf.select(config, "dataloader.train.mapper.use_instance_mask"):
        return
    for photo in layout.splits["train"]:
        if not all(entry.get("segmentation") for entry in photo.objects):
            raise ValueError(
                f"--data: {photo.path} has an object without a mask, which this config needs: use "
                "a config of a detector of boxes"
            )


def describe_data(config: DictConfig, layout: Layout) -> list[str]:
    """Returns lines for the log: the data, the training's length, what anchors can reach."""
    if "train" not in layout.splits:
        return []
    labeled = layout._replace(
        splits={split: x for split, x in layout.splits.items() if split != UNLABELED}
    )
    names = layout.class_names
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    splits = [
        f"{split} {len(photos)} images, {sum(len(photo.objects) for photo in photos)} objects"
        for split, photos in labeled.splits.items()
    ]
    lines = [f"Data ({layout.name}): {len(names)} classes ({shown}); {'; '.join(splits)}"]
    lines += [f"Warning: {line}" for line in split_warnings(labeled)]
    train, batch_size = config.train, config.dataloader.train.total_batch_size
    epochs = train.max_iter * batch_size * train.accumulate / len(layout.splits["train"])
    lines.append(f"Training: train.max_iter={train.max_iter}, {epochs:.1f} epochs")
    resize = OmegaConf.select(config, "dataloader.test.mapper.augmentations.0")
    if resize is not None and "short_edge_length" in resize:
        short, longest = resize.short_edge_length, resize.max_size
        lines.append(f"Images: short side {short} px, long side at most {longest} px")
    sizes = BoxSizes.of(config, layout.splits["train"])
    if sizes.share is not None:
        shown = ", ".join(f"{side:g}" for side in sizes.anchors)
        lines.append(
            f"Anchors of {shown} px: {sizes.share:.1%} of the training boxes have an IoU of "
            f"{REACHED_IOU} or more with one; change the image size or the anchors' scale if that "
            "is low"
        )
    return lines
