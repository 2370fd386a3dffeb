"""Trains a teacher and a student alone on digit scenes, then the student with the teacher.

It compares the student alone, with LAD and with SoLAD. Two trainings run at a time, each with one
thread. Pictures, curves and results go to output/demo/. An interrupted training is resumed; a
finished one is not repeated. Remove output/demo to start again.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile

from lad.checkpoint import load_weights
from lad.data import get_dataset_dicts
from lad.engine.config import load_config
from lad.metrics import read_metrics, series
from lad.visualize import draw_detections, plot_curves
from studies.digits_demo import study
from studies.runner import results
from studies.runner.jobs import Runner
from studies.runner.tables import gains

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = Path("output")
SEED = 0
METHODS = [study.method(name) for name in ("teacher", "paa", "lad", "solad")]
PICTURES = 6


def main() -> int:
    """Runs the demo; returns the exit status."""
    argparse.ArgumentParser(
        prog="demo.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    start = time.time()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    runner = Runner(study, OUTPUT / study.name / "results", OUTPUT, Path("datasets"))
    try:
        train(runner)
        show(runner)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"\n{time.time() - start:.0f} seconds")
    return 0


def train(runner: Runner) -> None:
    """Trains what has not been trained, with a progress bar over all iterations.

    Raises:
        RuntimeError: if a training fails, or another process trains one.
    """
    for split in ("train", "val"):
        get_dataset_dicts(names=f"digits_{split}")  # generated on first use, with its own bar
    folders = {runner.folder(x, SEED): runner.config(x).train.max_iter for x in METHODS}
    with (
        ThreadPoolExecutor(1) as pool,
        tqdm(total=sum(folders.values()), unit="it", dynamic_ncols=True) as progress,
        redirect_stdout(DummyTqdmFile(sys.stdout)),
    ):
        names = [method.name for method in METHODS]
        trainings = pool.submit(runner.run_all, names, [SEED], workers=2)
        try:
            while not trainings.done():
                time.sleep(1)
                done = sum(min(iterations(x), most) for x, most in folders.items())
                progress.update(done - progress.n)
        finally:
            runner.terminate()
        trainings.result()
    for method in METHODS:
        if not results.path(runner.results, method.name, SEED).is_file():
            raise RuntimeError(f"another process trains {runner.folder(method, SEED)}")


def show(runner: Runner) -> None:
    """Draws pictures and curves, and prints the comparison."""
    folder = OUTPUT / study.name
    folders = {method.name: runner.folder(method, SEED) for method in METHODS}
    for name, run in folders.items():
        draw(run, folder / name)
    logs = {name: run / "metrics.json" for name, run in folders.items()}
    plot_curves(logs, ["total_loss"], folder / "loss.png", "training loss")
    print(f"\n{comparison(runner.results, ROOT / 'docs/results' / study.name)}")
    print(f"\npictures and curves: {folder}/*.png")


def iterations(run: Path) -> int:
    """Returns how many iterations a training has logged."""
    metrics = run / "metrics.json"
    last = series(read_metrics(metrics), "total_loss")[0][-1:] if metrics.is_file() else []
    return last[0] + 1 if last else 0


def draw(run: Path, prefix: Path) -> None:
    """Draws ground truth beside detections for some validation images, as PREFIX_0.png etc."""
    config = load_config(str(run / "config.yaml"))
    model = instantiate(config.model).eval()
    load_weights(model, str(run / "model_final.pth"))
    dataset = config.dataloader.test.dataset.names
    metadata = MetadataCatalog.get(dataset)
    mapper = instantiate(config.dataloader.test.mapper)
    for number, record in enumerate(DatasetCatalog.get(dataset)[:PICTURES]):
        detections = model([mapper(record)])[0]["instances"]
        picture = draw_detections(record, detections, metadata)
        Image.fromarray(picture).save(f"{prefix}_{number}.png")


def comparison(here: Path, stored: Path) -> str:
    """Returns the AP of the demo's runs, and gains beside those of the stored seeds.

    Args:
        here: results of the demo.
        stored: results of the same trainings with several seeds.
    """
    lines = [f"{'':10}{'AP':>8}{'AP50':>8}{'AP75':>8}{'gain':>8}   gain over seeds"]
    for method in METHODS:
        student = results.read_all(here, method.name)[SEED]["networks"]["student"]
        line = f"{method.name:10}"
        line += "".join(f"{student[key]:8.1f}" for key in ("AP", "AP50", "AP75"))
        if method.baseline:
            known = gains(stored, method).values()
            line += f"{gains(here, method)[SEED]:+8.1f}   {statistics.mean(known):+.1f}, "
            line += f"from {min(known):+.1f} to {max(known):+.1f} ({len(known)} seeds)"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
