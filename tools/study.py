"""Trains the methods on digit scenes with several seeds and reports mean and standard deviation.

    python tools/study.py                      all methods, seeds 0 1 2, one run at a time
    python tools/study.py paa lad --seeds 3 4 --workers 2
    python tools/study.py --table              only the table of what is stored
    python tools/study.py --cost               CPU time of a training step of each method

Each run's figures are stored as METHOD_seedN.json in docs/results, or in --results. A stored run is
not repeated unless its file is removed. An interrupted one is resumed if output/study is kept.
Rounding alone moves a run's AP by some points: compare only runs of one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import detectron2
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.utils.events import EventStorage
from scipy.stats import t

from lad.engine.run import start_training
from lad.metrics import read_metrics, series

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/results"
OUTPUT = Path("output/study")
TEACHER = OUTPUT / "teacher_seed0/model_final.pth"
# Of every student, so that all runs take an hour or two on two CPU cores.
SIZE = ["train.max_iter=400"]
NETWORKS = ("student", "teacher")
DISTILL_LOSSES = ("pkd", "bckd", "crosskd", "pgd")

DISTILLED = [f"{method}_{loss}" for method in ("paa", "lad") for loss in DISTILL_LOSSES]

# Config under configs/digits and overrides of each method.
METHODS: dict[str, tuple[str, ...]] = {
    "paa": ("paa",),
    # CoLAD's second network alone, and CoLAD's box loss without the other network.
    "paa_wide": ("paa", "model.backbone.bottom_up.width=48"),
    "paa_unweighted": ("paa", "model.losses.weight_boxes_by_iou=false"),
    "soft_label": ("soft_label_kl",),
    "lad": ("lad",),
    "solad": ("solad",),
    # Half of the labels; without and with the other half of the images.
    "solad_half": ("solad_unlabeled", "dataloader.train.unlabeled.ratio=0"),
    "solad_unlabeled": ("solad_unlabeled",),
    "lad_switch": ("lad_switch",),
    "colad_stdmean": ("colad_stdmean",),
    "colad_stdmean_level": ("colad_stdmean", "model.switch.scope=level"),
    "colad_fisher": ("colad_fisher",),
    "atss": ("atss",),
    "simota": ("simota",),
    "simota_lad": ("simota_lad",),
    "simota_colad": ("simota_colad",),
    "tal": ("tal",),
    "tal_lad": ("tal_lad",),
    "tal_colad": ("tal_colad",),
    **{name: (name,) for name in DISTILLED},
    "paa_lgd": ("paa_lgd",),
    "lad_lgd": ("lad_lgd",),
    "retinanet": ("retinanet",),
    "retinanet_lgd": ("retinanet_lgd",),
    "fcos": ("fcos",),
    "fcos_lgd": ("fcos_lgd",),
}


def stored(method: str, seed: int) -> Path:
    """Returns where a run's figures are kept."""
    return RESULTS / f"{method}_seed{seed}.json"


def stored_runs(method: str) -> dict[int, dict]:
    """Returns the figures of a method's stored runs by seed."""
    paths = {int(x.stem.split("_seed")[1]): x for x in RESULTS.glob(f"{method}_seed*.json")}
    return {seed: json.loads(path.read_text()) for seed, path in sorted(paths.items())}


def config_file(method: str) -> Path:
    """Returns a method's config."""
    return ROOT / f"configs/digits/{METHODS.get(method, (method,))[0]}.py"


def needs_teacher(method: str) -> bool:
    """Returns whether a method starts from a trained teacher."""
    return bool(LazyConfig.load(str(config_file(method))).model.get("teacher_checkpoint"))


def run(method: str, seed: int) -> None:
    """Trains one method with one seed and stores its figures.

    Raises:
        RuntimeError: if the training fails.
    """
    folder = OUTPUT / f"{method}_seed{seed}"
    overrides = list(METHODS.get(method, (method,))[1:])
    overrides += [f"train.output_dir={folder}", f"train.seed={seed}", "train.eval_period=0"]
    overrides += ["train.eval_teacher=false"]
    if method != "teacher":
        overrides += SIZE
    if needs_teacher(method):
        overrides += [f"model.teacher_checkpoint={TEACHER}"]
    arguments = ["--resume", "--config-file", str(config_file(method)), *overrides]
    folder.mkdir(parents=True, exist_ok=True)
    with start_training(arguments, folder / "output.txt", threads=1) as process:
        status = process.wait()
    if status:
        raise RuntimeError(f"{method}, seed {seed}: status {status}, see {folder}/output.txt")
    RESULTS.mkdir(parents=True, exist_ok=True)
    stored(method, seed).write_text(json.dumps(figures(folder, method, seed), indent=2) + "\n")
    print(f"{method}, seed {seed}: done", flush=True)


def figures(folder: Path, method: str, seed: int) -> dict:
    """Returns the figures of a finished run and the versions that it used."""
    rows = read_metrics(folder / "metrics.json")
    metrics = {}
    for prefix in ("", *(f"{name}/" for name in NETWORKS)):
        for key in ("AP", "AP50", "AP75"):
            values = series(rows, f"{prefix}bbox/{key}")[1]
            if values:
                metrics[f"{prefix}bbox/{key}"] = values[-1]
    share = series(rows, "switch/student_share")[1]
    if share:
        metrics["switch/student_share"] = share[-1]
    return {
        "method": method,
        "seed": seed,
        "iterations": series(rows, "total_loss")[0][-1] + 1,
        "torch": torch.__version__,
        "detectron2": detectron2.__version__,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        **metrics,
    }


def table() -> str:
    """Returns the stored runs as a Markdown table: mean and standard deviation over the seeds."""
    columns = "method", "seeds", "AP", "AP50", "AP75", "AP of the second network", "student taught"
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for method in ("teacher", *METHODS):
        runs = list(stored_runs(method).values())
        if not runs:
            continue
        prefix = "student/" if "student/bbox/AP" in runs[0] else ""
        cells = [spread(runs, f"{prefix}bbox/{key}") for key in ("AP", "AP50", "AP75")]
        cells += [spread(runs, "teacher/bbox/AP"), spread(runs, "switch/student_share", digits=2)]
        lines += [f"| {' | '.join([method, str(len(runs)), *cells])} |"]
    return "\n".join(lines)


def differences() -> str:
    """Returns what LGD adds to each method, by seed and with a 95 % interval of the mean (t)."""
    lines = [
        "| method | AP with LGD - AP without, by seed | mean, 95 % interval |",
        "|---|---|---|",
    ]
    for method in (name for name in METHODS if f"{name}_lgd" in METHODS):
        plain, lgd = stored_runs(method), stored_runs(f"{method}_lgd")
        gains = [lgd[seed]["bbox/AP"] - plain[seed]["bbox/AP"] for seed in plain if seed in lgd]
        if len(gains) > 1:
            mean = statistics.mean(gains)
            half = t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / len(gains) ** 0.5
            by_seed = ", ".join(f"{gain:+.1f}" for gain in gains)
            lines.append(
                f"| {method} | {by_seed} | {mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f}) |"
            )
    return "\n".join(lines) if len(lines) > 2 else ""


def costs(methods: list[str], rounds: int = 7) -> str:
    """Returns the CPU time of a training step relative to PAA's, as a Markdown table.

    The methods take turns on the same batch in one process, so that other load on the machine
    affects all alike.
    """
    configs = {name: LazyConfig.load(str(config_file(name))) for name in ["paa", *methods]}
    batch = next(iter(instantiate(configs["paa"].dataloader.train)))
    models = {name: instantiate(config.model).train() for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            start = time.process_time()
            with EventStorage():
                sum(model(batch).values()).backward()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    lines = ["| method | CPU time of a step, PAA's = 1 |", "|---|---|"]
    lines += [f"| {name} | {value / medians['paa']:.2f} |" for name, value in medians.items()]
    return "\n".join(lines)


def spread(runs: list[dict], key: str, digits: int = 1) -> str:
    """Returns "mean ± standard deviation" of a metric, "" where the runs have none."""
    values = [x[key] for x in runs if key in x]
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def main() -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--results", type=Path, metavar="DIR", help="of the runs' figures")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--cost", action="store_true", help="measure steps, train nothing")
    args = parser.parse_args()
    if args.results:
        global RESULTS
        RESULTS = args.results
    methods = args.methods or list(METHODS)
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        parser.error(f"unknown method {unknown[0]}: choose from {', '.join(METHODS)}")
    if args.cost:
        torch.set_num_threads(1)
        print(costs(["teacher", *(name for name in methods if name != "paa")]))
        return 0
    if not args.table:
        jobs = [(name, seed) for seed in args.seeds for name in methods]
        jobs = [job for job in jobs if not stored(*job).is_file()]
        try:
            if any(needs_teacher(name) for name, _ in jobs) and not TEACHER.is_file():
                run("teacher", 0)
            with ThreadPoolExecutor(args.workers) as pool:
                list(pool.map(lambda job: run(*job), jobs))
        except RuntimeError as error:
            print(f"study: {error}", file=sys.stderr)
            return 1
    print("\n\n".join(filter(None, [table(), differences()])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
