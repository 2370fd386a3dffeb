"""Trains and evaluates on digit scenes, and writes tables, pictures and curves to output/demo.

A training that was interrupted goes on where it was; a finished one is not repeated. Remove
output/demo to begin anew.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

import lad.data
from lad.visualize import draw_detections, plot_curves

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = Path("output/demo")
RUNS = ("paa",)
PICTURES = 6


def train(name: str) -> None:
    """Trains one config of configs/digits to the end, in a process of its own."""
    folder = OUTPUT / name
    if (folder / "model_final.pth").is_file():
        print(f"{folder} is finished already")
        return
    command = [sys.executable, str(ROOT / "train_net.py")]
    command += ["--config-file", str(ROOT / f"configs/digits/{name}.py"), "--resume"]
    command += [f"train.output_dir={folder}"]
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(f"demo: training {name} failed with status {status}: see {folder}/log.txt")


def draw(name: str) -> None:
    """Draws ground truth beside detections for some validation images."""
    config = LazyConfig.load(str(OUTPUT / name / "config.yaml"))
    model = instantiate(config.model).eval()
    DetectionCheckpointer(model).load(str(OUTPUT / name / "model_final.pth"))
    dataset = config.dataloader.test.dataset.names
    metadata = MetadataCatalog.get(dataset)
    mapper = instantiate(config.dataloader.test.mapper)
    for number, record in enumerate(DatasetCatalog.get(dataset)[:PICTURES]):
        detections = model([mapper(record)])[0]["instances"]
        picture = draw_detections(record, detections, metadata)
        Image.fromarray(picture).save(OUTPUT / f"{name}_{number}.png")


def final_metrics(name: str) -> dict[str, float]:
    """Reads the last evaluation of a run."""
    lines = (OUTPUT / name / "metrics.json").read_text().splitlines()
    evaluated = [row for row in map(json.loads, lines) if "bbox/AP" in row]
    return {key: round(evaluated[-1][f"bbox/{key}"], 2) for key in ("AP", "AP50", "AP75")}


def main() -> None:
    """Runs the demo."""
    start = time.time()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    lad.data.DigitScenesSpec()  # the datasets are registered
    for name in RUNS:
        train(name)
        draw(name)
    results = {name: final_metrics(name) for name in RUNS}
    logs = {name: OUTPUT / name / "metrics.json" for name in RUNS}
    plot_curves(logs, ["total_loss"], OUTPUT / "loss.png", "training loss")
    plot_curves(logs, ["bbox/AP"], OUTPUT / "ap.png", "AP on digits_val")
    results["seconds"] = round(time.time() - start)
    (OUTPUT / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{'':10}{'AP':>8}{'AP50':>8}{'AP75':>8}")
    for name in RUNS:
        print(f"{name:10}" + "".join(f"{value:8.1f}" for value in results[name].values()))
    print(f"\n{results['seconds']} seconds; pictures and curves: {OUTPUT}/*.png")


if __name__ == "__main__":
    main()
