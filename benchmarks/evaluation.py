"""COCO evaluation as the configs run it against pycocotools, on synthetic detections."""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.evaluation import coco_evaluation
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.measure import Report, interleaved, no_output
from lad.data import build_coco_evaluator, register_coco

DETECTIONS = 100  # per image
CLASSES = 80
SIZE = 480, 640  # height, width
NAME = "benchmark_detections"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this mode's options."""
    parser.add_argument("--images", type=int, default=5000)


def run(args: argparse.Namespace, report: Report) -> None:
    """Times the evaluation of the same detections both ways and compares the 12 numbers."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, no_output():
        path = Path(folder) / "instances.json"
        ground_truth = make_ground_truth(args.images, rng)
        path.write_text(json.dumps(ground_truth))
        register_coco(NAME, path, folder)
        build_coco_evaluator(NAME)  # chooses the class that Detectron2 evaluates with
        ours, truth = coco_evaluation.COCOeval_opt, COCO(str(path))
        detections = make_detections(ground_truth, rng)
        statistics: dict[str, np.ndarray] = {}
        seconds = interleaved(
            {
                name: partial(evaluate, method, truth, detections, statistics, name)
                for name, method in {"ours": ours, "pycocotools": COCOeval}.items()
            },
            repeats=args.repeats or 1,
            warmup=0,
        )
    for name, value in seconds.items():
        report.figure(f"{name}, {args.images} images x {DETECTIONS} detections", value, "s")
    report.figure("AP of the synthetic detections", 100 * statistics["ours"][0], "%")
    report.at_least("evaluation-speedup", seconds["pycocotools"] / seconds["ours"], 3)
    difference = np.abs(statistics["ours"] - statistics["pycocotools"]).max()
    report.at_most("evaluation-12-numbers", float(difference), 1e-9)


def evaluate(
    method: type[COCOeval],
    truth: COCO,
    detections: list[dict],
    statistics: dict[str, np.ndarray],
    name: str,
) -> None:
    """Computes the 12 numbers with a class of pycocotools' interface."""
    result = method(truth, truth.loadRes(detections), "bbox")
    result.evaluate()
    result.accumulate()
    result.summarize()
    statistics[name] = np.asarray(result.stats[:12], dtype=np.float64)


def make_ground_truth(images: int, rng: np.random.Generator) -> dict:
    """Returns COCO's json with 1 to 13 objects per image, a hundredth of them crowds."""
    height, width = SIZE
    annotations = []
    for image in range(images):
        for _ in range(rng.integers(1, 14)):
            w, h = np.exp(rng.uniform(np.log(8), np.log(300), size=2))
            x, y = rng.uniform(0, [width - w, height - h])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 1,
                    "category_id": int(rng.integers(CLASSES)) + 1,
                    "bbox": [float(x), float(y), float(w), float(h)],
                    "area": float(w * h),
                    "iscrowd": int(rng.random() < 0.01),
                }
            )
    return {
        "images": [
            {"id": i + 1, "file_name": f"{i}.jpg", "height": height, "width": width}
            for i in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(CLASSES)],
    }


def make_detections(ground_truth: dict, rng: np.random.Generator) -> list[dict]:
    """Returns detections around the objects of each image, of mostly their classes."""
    of_image: dict[int, list[dict]] = {x["id"]: [] for x in ground_truth["images"]}
    for annotation in ground_truth["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    detections = []
    for image, objects in of_image.items():
        for index in rng.integers(len(objects), size=DETECTIONS):
            box = np.array(objects[index]["bbox"])
            box += rng.normal(scale=0.15, size=4) * np.tile(box[2:], 2)
            box[2:] = np.abs(box[2:]) + 1
            right = rng.random() < 0.7
            category = objects[index]["category_id"] if right else int(rng.integers(CLASSES)) + 1
            detections.append(
                {
                    "image_id": image,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "score": float(rng.random()),
                }
            )
    return detections
