"""The whole label assignment against the same steps with one mixture fit per object in a loop."""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Report, interleaved
from benchmarks.scenes import make_anchors, parse_size, random_targets, spread_predictions
from lad.assignment.assigners import PAAAssigner, cheapest_per_level, label_anchors
from lad.assignment.costs import PAACost
from lad.assignment.mixture import MixtureFit
from lad.structures import Anchors, Assignment, DensePredictions, Targets

IMAGES = 2
TURN = 0.05  # seconds
SPEEDUPS = {7: 8.0, 20: 15.0, 60: 30.0}  # wanted at so many objects an image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this mode's options."""
    parser.add_argument("--size", type=parse_size, default="800x1344", help="height x width")
    parser.add_argument(
        "--objects", type=parse_counts, default="1,7,20,60,300", help="an image, by commas"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw time against objects")


def parse_counts(text: str) -> list[int]:
    """Returns the numbers of "1,7,20".

    Raises:
        argparse.ArgumentTypeError: for other text.
    """
    if not all(x.isdecimal() and int(x) for x in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers, such as 1,7,20")
    return [int(x) for x in text.split(",")]


def run(args: argparse.Namespace, report: Report) -> None:
    """Measures every number of objects."""
    (height, width), counts = args.size, args.objects
    anchors = make_anchors(height, width, args.device)
    predictions = spread_predictions(IMAGES, len(anchors.boxes), args.device)
    batched, looped = make_assigner(), make_assigner()
    looped.fit = fit_one_by_one
    variants = {}
    for count in counts:
        scene = anchors, predictions, random_targets(IMAGES, count, height, width)
        check_labels(assign(batched, *scene), assign(looped, *scene), count)
        variants[count, "batched"] = partial(assign, batched, *scene)
        variants[count, "looped"] = partial(assign, looped, *scene)
    seconds = interleaved(variants, repeats=args.repeats or 11, turn=TURN, device=args.device)
    for (count, name), value in seconds.items():
        report.figure(f"{name}, {count} objects an image", value * 1e3, "ms")
    for count, speedup in SPEEDUPS.items():
        if count in counts:
            ratio = seconds[count, "looped"] / seconds[count, "batched"]
            report.at_least(f"assignment-speedup-{count}", ratio, speedup)
    if {60, 300} <= set(counts):
        growth = seconds[300, "batched"] / seconds[60, "batched"]
        report.at_most("assignment-growth-60-to-300", growth, 5)
    for count in counts:
        targets = random_targets(IMAGES, count, height, width)
        report_steps(report, anchors, predictions, targets, count, args)
    if args.plot:
        plot(seconds, args.plot)


def make_assigner() -> PAAAssigner:
    """Returns the assigner of the shipped configs, for 80 classes."""
    return PAAAssigner(cost=PAACost(), num_classes=80)


def assign(
    assigner: PAAAssigner, anchors: Anchors, predictions: DensePredictions, targets: Targets
) -> Assignment:
    """Runs candidates, cost, top 9, mixture and labels as a training step does."""
    device = predictions.scores.device
    candidates = assigner.candidates(anchors, targets).to(device)
    targets = targets.to(device)
    cost = assigner.cost(predictions, anchors, targets, candidates)
    return assigner.assign(cost, candidates, anchors, targets)


def fit_one_by_one(samples: Tensor, present: Tensor) -> MixtureFit:
    """Fits one scikit-learn mixture per object on the CPU, as the official code does.

    In float64: the official float32 fits are not exact and sometimes fail.
    """
    from sklearn.mixture import GaussianMixture

    rows = [
        x[mask].cpu().double().numpy()[:, None] for x, mask in zip(samples, present, strict=True)
    ]
    lower = torch.zeros(samples.shape, dtype=torch.bool)
    density = torch.zeros(samples.shape, dtype=torch.float64)
    means, variances, weights = (torch.ones(len(rows), 2, dtype=torch.float64) for _ in range(3))
    iterations = torch.zeros(len(rows), dtype=torch.int64)
    for row, x in enumerate(rows):
        if len(x) < 2:
            lower[row, : len(x)] = True
            continue
        mixture = GaussianMixture(
            2,
            covariance_type="diag",
            weights_init=[0.5, 0.5],
            means_init=[x.min(axis=0), x.max(axis=0)],
            precisions_init=np.ones((2, 1)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mixture.fit(x)
        lower[row, : len(x)] = torch.from_numpy(mixture.predict(x) == 0)
        density[row, : len(x)] = torch.from_numpy(mixture.score_samples(x))
        means[row] = torch.from_numpy(mixture.means_[:, 0])
        variances[row] = torch.from_numpy(mixture.covariances_[:, 0])
        weights[row] = torch.from_numpy(mixture.weights_)
        iterations[row] = mixture.n_iter_
    fit = MixtureFit(lower, density, means, variances, weights, iterations)
    return MixtureFit(*(x.to(samples.device) for x in fit))


def check_labels(batched: Assignment, looped: Assignment, count: int) -> None:
    """Raises RuntimeError where both ways do not give the same labels."""
    differing = int((batched.labels != looped.labels).sum() + (batched.gt != looped.gt).sum())
    if differing:
        raise RuntimeError(f"{differing} labels differ between the two ways at {count} objects")


def report_steps(
    report: Report,
    anchors: Anchors,
    predictions: DensePredictions,
    targets: Targets,
    count: int,
    args: argparse.Namespace,
) -> None:
    """Times the steps of our assignment one by one: where the time goes."""
    device = predictions.scores.device
    assigner = make_assigner()
    candidates = assigner.candidates(anchors, targets).to(device)
    geometry = partial(assigner.candidates, anchors, targets)
    targets = targets.to(device)
    cost = assigner.cost(predictions, anchors, targets, candidates)
    select = partial(
        cheapest_per_level, cost, candidates, len(targets.boxes), len(anchors.shapes), assigner.topk
    )
    chosen = select()
    positive = assigner.separate(cost, chosen)
    steps = {
        "candidates": geometry,
        "cost": partial(assigner.cost, predictions, anchors, targets, candidates),
        "top 9": select,
        "mixture": partial(assigner.separate, cost, chosen),
        "labels": partial(label_anchors, positive, chosen, candidates, anchors, targets, 80),
    }
    seconds = interleaved(steps, repeats=args.repeats or 11, turn=TURN, device=args.device)
    for name, value in seconds.items():
        report.figure(f"  {name}, {count} objects an image", value * 1e3, "ms")


def plot(seconds: dict[tuple[int, str], float], path: Path) -> None:
    """Draws time against objects of both ways."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for name, label in (("looped", "one scikit-learn fit per object"), ("batched", "this project")):
        counts = [count for count, kind in seconds if kind == name]
        axes.plot(counts, [seconds[x, name] * 1e3 for x in counts], marker="o", label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"objects an image ({IMAGES} images)",
        ylabel="ms",
        title="Label assignment of one batch",
    )
    axes.set_xticks(counts, [str(x) for x in counts])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
