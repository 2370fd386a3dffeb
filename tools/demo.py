"""Trains a teacher, then a PAA and a LAD student on digit scenes, and compares them.

Tables, pictures and curves go to output/demo/. An interrupted training is resumed; a finished one
is not repeated. Remove output/demo to start again.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from tqdm import tqdm

from lad.checkpoint import load_weights
from lad.data import get_dataset_dicts
from lad.engine.config import load_config
from lad.engine.run import start_training
from lad.metrics import read_metrics, series
from lad.visualize import draw_detections, plot_curves

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = Path("output/demo")
RUNS = ("teacher", "paa", "lad")
PICTURES = 6


def config_file(name: str) -> Path:
    """Returns the config of a run."""
    return ROOT / f"configs/digits/{name}.py"


def train(name: str, progress: tqdm) -> None:
    """Trains and evaluates one config in another process; ``progress`` counts all iterations."""
    folder = OUTPUT / name
    progress.set_description(f"{name:8}")
    start = progress.n
    iterations = LazyConfig.load(str(config_file(name))).train.max_iter
    if not is_evaluated(folder, iterations):
        arguments = ["--resume", "--config-file", str(config_file(name))]
        arguments += [f"train.output_dir={folder}"]
        if name == "lad":
            arguments += [f"model.teacher_checkpoint={OUTPUT}/teacher/model_final.pth"]
        log = OUTPUT / f"{name}.log"
        with start_training(arguments, log, threads=os.cpu_count() or 1) as process:
            try:
                while process.poll() is None:
                    time.sleep(1)
                    progress.update(start + last_iteration(folder, "total_loss") + 1 - progress.n)
            finally:
                process.terminate()
        if process.returncode:
            progress.close()
            tail = "\n".join(log.read_text().splitlines()[-5:])
            sys.exit(f"demo: training {name} stopped with status {process.returncode}:\n{tail}")
    progress.update(start + iterations - progress.n)


def is_evaluated(folder: Path, iterations: int) -> bool:
    """Returns whether a run has been trained and evaluated to the end."""
    return last_iteration(folder, "bbox/AP") >= iterations


def last_iteration(folder: Path, metric: str) -> int:
    """Returns the iteration of a metric's last value in a run's log, -1 without one."""
    metrics = folder / "metrics.json"
    iterations = series(read_metrics(metrics), metric)[0] if metrics.is_file() else []
    return iterations[-1] if iterations else -1


def draw(name: str) -> None:
    """Draws ground truth beside detections for some validation images."""
    config = load_config(str(OUTPUT / name / "config.yaml"))
    model = instantiate(config.model).eval()
    load_weights(model, str(OUTPUT / name / "model_final.pth"))
    dataset = config.dataloader.test.dataset.names
    metadata = MetadataCatalog.get(dataset)
    mapper = instantiate(config.dataloader.test.mapper)
    for number, record in enumerate(DatasetCatalog.get(dataset)[:PICTURES]):
        detections = model([mapper(record)])[0]["instances"]
        picture = draw_detections(record, detections, metadata)
        Image.fromarray(picture).save(OUTPUT / f"{name}_{number}.png")


def final_metrics(name: str) -> dict[str, float]:
    """Reads the last evaluation of a run."""
    rows = read_metrics(OUTPUT / name / "metrics.json")
    return {key: round(series(rows, f"bbox/{key}")[1][-1], 2) for key in ("AP", "AP50", "AP75")}


def main() -> None:
    """Runs the demo."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the training
    begin = time.time()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        get_dataset_dicts(names=f"digits_{split}")  # generated on first use, with its own bar
    total = sum(LazyConfig.load(str(config_file(name))).train.max_iter for name in RUNS)
    with tqdm(total=total, unit="it", dynamic_ncols=True) as progress:
        for name in RUNS:
            train(name, progress)
    for name in RUNS:
        draw(name)
    results = {name: final_metrics(name) for name in RUNS}
    logs = {name: OUTPUT / name / "metrics.json" for name in RUNS}
    plot_curves(logs, ["total_loss"], OUTPUT / "loss.png", "training loss")
    plot_curves(logs, ["bbox/AP"], OUTPUT / "ap.png", "AP on digits_val")
    results["seconds"] = round(time.time() - begin)
    (OUTPUT / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{'':10}{'AP':>8}{'AP50':>8}{'AP75':>8}")
    for name in RUNS:
        print(f"{name:10}" + "".join(f"{value:8.1f}" for value in results[name].values()))
    print(f"\n{results['seconds']} seconds; pictures and curves: {OUTPUT}/*.png")


if __name__ == "__main__":
    main()
