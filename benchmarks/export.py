"""Size of exported files, and their latency in ONNX Runtime against PyTorch, on a CPU."""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetMapper

from benchmarks.measure import Report, interleaved
from benchmarks.scenes import parse_size
from lad.engine.config import build, load_config
from lad.export.describe import describe
from lad.export.runtime import ExportedDetector
from lad.export.write import export_detector

CONFIGS = {
    "small": "digits/paa.py",
    "PAA R18": "paa/r18_1x.py",
    "PAA R50": "paa/r50_1x.py",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this mode's options."""
    parser.add_argument("--size", type=parse_size, default="320x512", help="height x width")
    parser.add_argument("--models", nargs="+", choices=CONFIGS, default=list(CONFIGS))


def run(args: argparse.Namespace, report: Report) -> None:
    """Exports each model for one size, with random weights, and times it."""
    height, width = args.size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mapper = DatasetMapper(is_train=False, augmentations=[], image_format="RGB")
    for name in args.models:
        torch.manual_seed(0)
        network = build(load_config(CONFIGS[name]), "model").eval()
        # Random weights score sqrt(0.01 x 0.5): no detection, so the networks alone are timed.
        network.postprocessor.score_thresh = 1.0
        names = [str(number) for number in range(network.num_classes)]
        data = describe(network, mapper, class_names=names, size=args.size)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            export_detector(network, path, data, [image])
            report.figure(f"{name}, file", path.stat().st_size / 2**20, "MiB")
            detector = ExportedDetector(path, threads=args.threads)
        pixels = detector.prepare(image)
        ways = {
            "ONNX Runtime": partial(detector.detect, pixels),
            "PyTorch": partial(network, [{"image": torch.from_numpy(pixels)}]),
        }
        with torch.no_grad():
            seconds = interleaved(ways, repeats=args.repeats or 11, warmup=2)
        for way, value in seconds.items():
            report.figure(f"{name}, {way}", value * 1e3, "ms")
