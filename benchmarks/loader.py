"""Images per second of the training loader against those of the training step."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from PIL import Image

from benchmarks.measure import Report, interleaved
from benchmarks.step import CONFIGS, TrainingStep
from lad.data import build_train_loader

CONFIG = {"digits": "digits/paa.py", "bccd": "bccd/paa.py", "coco": "paa/r50_1x.py"}
WORKERS = 2
FILES = 32
PHOTO = 480, 640  # height, width of the JPEGs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this mode's options."""
    parser.add_argument("--data", nargs="+", choices=list(CONFIG), default=list(CONFIG))
    parser.add_argument("--batch", type=int, default=2, help="of the COCO-sized step")


def run(args: argparse.Namespace, report: Report) -> None:
    """Measures loader and step of each kind of data."""
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(Path(folder))
        for name in args.data:
            cfg = LazyConfig.load(str(CONFIGS / CONFIG[name]))
            if name == "coco":
                cfg.dataloader.train.total_batch_size = args.batch
            measure(name, cfg, photos, args, report)


def measure(
    name: str, cfg: DictConfig, photos: list[dict], args: argparse.Namespace, report: Report
) -> None:
    """Measures the loader of a config with two workers, then its step on a batch from there."""
    node = cfg.dataloader.train
    dataset = instantiate(node.dataset) if name == "digits" else photos
    loader = build_train_loader(
        dataset=dataset,
        mapper=instantiate(node.mapper),
        total_batch_size=node.total_batch_size,
        num_workers=WORKERS,
        seed=0,
    )
    batches = iter(loader)
    loaded = images_per_second(batches, node.total_batch_size)
    batch = next(batches)
    del batches  # ends the workers: the step is measured alone
    model = instantiate(cfg.model).to(args.device)
    seconds = interleaved(
        {"step": TrainingStep(model, batch)},
        repeats=args.repeats or (2 if name == "coco" and args.device == "cpu" else 10),
        device=args.device,
    )
    stepped = len(batch) / seconds["step"]
    report.figure(f"{name}, loader with {WORKERS} workers", loaded, "images/s")
    report.figure(f"{name}, step", stepped, "images/s")
    report.at_least(f"loader-{name}", loaded / stepped, 1.0)


def images_per_second(batches: Iterator[list[dict]], size: int, seconds: float = 8.0) -> float:
    """Returns the loader's rate after its first batches, which have ``size`` images each."""
    for _ in range(2 * WORKERS + 2):  # more than the workers prefetch
        next(batches)
    start, number = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        number += size
    return number / (time.perf_counter() - start)


def write_photos(folder: Path) -> list[dict]:
    """Writes JPEGs with the detail of photographs; returns their dataset dicts, 7 objects each."""
    rng = np.random.default_rng(0)
    height, width = PHOTO
    dataset = []
    for index in range(FILES):
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        pixels = (pixels + rng.normal(scale=6, size=pixels.shape)).clip(0, 255).astype(np.uint8)
        path = folder / f"{index}.jpg"
        Image.fromarray(pixels).save(path, quality=90)
        corner = rng.uniform(0, [width / 2, height / 2], size=(7, 2))
        boxes = np.concatenate([corner, rng.uniform(16, 240, size=(7, 2))], axis=1)
        dataset.append(
            {
                "file_name": str(path),
                "image_id": index,
                "height": height,
                "width": width,
                "annotations": [
                    {"bbox": box.tolist(), "bbox_mode": 1, "category_id": i % 3, "iscrowd": 0}
                    for i, box in enumerate(boxes)
                ],
            }
        )
    return dataset
