"""The whole label assignment against the same steps in a loop over objects."""

from __future__ import annotations

import argparse
import warnings
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Report, interleaved
from benchmarks.scenes import make_anchors, parse_size, random_targets, spread_predictions
from lad.assignment.assigners import cheapest_per_level, label_anchors
from lad.assignment.costs import PAACost
from lad.assignment.paa import PAAAssigner
from lad.structures import Anchors, Assignment, Candidates, DensePredictions, Targets

IMAGES = 2
TURN = 0.05  # seconds
SPEEDUPS = {7: 7.0, 20: 14.0, 60: 20.0}  # targets by objects per image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this mode's options."""
    parser.add_argument("--size", type=parse_size, default="800x1344", help="height x width")
    parser.add_argument(
        "--objects",
        type=parse_counts,
        default="1,7,20,60,300",
        help="per image, separated by commas",
    )


def parse_counts(text: str) -> list[int]:
    """Returns the numbers of "1,7,20".

    Raises:
        argparse.ArgumentTypeError: for other text.
    """
    if not all(x.isdecimal() and int(x) for x in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers, such as 1,7,20")
    return [int(x) for x in text.split(",")]


def run(args: argparse.Namespace, report: Report) -> None:
    """Measures the assignment at each number of objects."""
    (height, width), counts = args.size, args.objects
    anchors = make_anchors(height, width, args.device)
    predictions = spread_predictions(IMAGES, anchors)
    assigner = make_assigner()
    variants = {}
    for count in counts:
        scene = assigner, predictions, random_targets(IMAGES, count, height, width)
        ways = {"this project": assign, "objects one by one": assign_one_by_one}
        differing = count_differing(*(way(*scene) for way in ways.values()))
        report.at_most(f"assignment-differing-labels-{count}", differing, 0)
        variants.update({(count, name): partial(way, *scene) for name, way in ways.items()})
    seconds = interleaved(variants, repeats=args.repeats or 11, turn=TURN, device=args.device)
    for (count, name), value in seconds.items():
        report.figure(f"{name}, {count} objects per image", value * 1e3, "ms")
    for count, speedup in SPEEDUPS.items():
        if count in counts:
            ratio = seconds[count, "objects one by one"] / seconds[count, "this project"]
            report.at_least(f"assignment-speedup-{count}", ratio, speedup)
    if {60, 300} <= set(counts):
        growth = seconds[300, "this project"] / seconds[60, "this project"]
        report.at_most("assignment-growth-60-to-300", growth, 5)
    for count in counts:
        targets = random_targets(IMAGES, count, height, width)
        report_steps(report, predictions, targets, count, args)


def make_assigner() -> PAAAssigner:
    """Returns the assigner of the shipped configs, for 80 classes."""
    return PAAAssigner(cost=PAACost(), num_classes=80)


def assign(assigner: PAAAssigner, predictions: DensePredictions, targets: Targets) -> Assignment:
    """Runs candidates, cost, top 9, mixture and labels as a training step does."""
    candidates = assigner.candidates(predictions.anchors, targets)
    targets = targets.to(predictions.scores.device)
    costs = assigner.cost(predictions, targets, candidates)
    return assigner.assign(costs, candidates, predictions.anchors, targets)


def assign_one_by_one(
    assigner: PAAAssigner, predictions: DensePredictions, targets: Targets
) -> Assignment:
    """Runs the official code's loop over objects on this project's candidates and costs."""
    candidates = assigner.candidates(predictions.anchors, targets)
    targets = targets.to(predictions.scores.device)
    cost = assigner.cost(predictions, targets, candidates).cost
    return label_one_by_one(assigner, cost, candidates, predictions.anchors, targets)


def label_one_by_one(
    assigner: PAAAssigner, cost: Tensor, candidates: Candidates, anchors: Anchors, targets: Targets
) -> Assignment:
    """Runs top 9, mixture fit on the CPU and labels in a loop over objects."""
    labels = torch.where(anchors.valid(targets.image_sizes), assigner.num_classes, -1)
    gt = torch.full_like(labels, -1)
    for image in range(len(labels)):
        of_image = (candidates.image == image).nonzero()[:, 0]
        objects, levels, costs = (x[of_image] for x in (candidates.gt, candidates.level, cost))
        for index in (targets.image == image).nonzero()[:, 0].tolist():
            chosen = []
            for level in range(len(anchors.strides)):
                at = ((objects == index) & (levels == level)).nonzero()[:, 0]
                number = min(assigner.topk, len(at))
                chosen.append(at[costs[at].topk(number, largest=False).indices])
            order = torch.cat(chosen)
            order = order[costs[order].argsort()]
            positive = torch.from_numpy(positives(costs[order].cpu().double().numpy()))
            anchor = candidates.anchor[of_image[order[positive.to(order.device)]]]
            labels[image, anchor] = targets.classes[index]
            gt[image, anchor] = index
    return Assignment(labels, gt)


def positives(costs: np.ndarray) -> np.ndarray:
    """Returns the mask of the positives among (T,) ascending costs, by a scikit-learn mixture.

    In float64, because the official float32 fits are not exact and sometimes fail.
    """
    from sklearn.mixture import GaussianMixture

    if len(costs) < 2:
        return np.ones(len(costs), dtype=bool)
    x = costs[:, None]
    mixture = GaussianMixture(
        2,
        covariance_type="diag",
        weights_init=[0.5, 0.5],
        means_init=[x[0], x[-1]],
        precisions_init=np.ones((2, 1)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lower = mixture.fit(x).predict(x) == 0
    density = np.where(lower, mixture.score_samples(x), -np.inf)
    return lower & (np.arange(len(x)) <= density.argmax())


def count_differing(batched: Assignment, looped: Assignment) -> int:
    """Returns how many anchors the two ways label differently."""
    return int(((batched.labels != looped.labels) | (batched.gt != looped.gt)).sum())


def report_steps(
    report: Report,
    predictions: DensePredictions,
    targets: Targets,
    count: int,
    args: argparse.Namespace,
) -> None:
    """Times the steps of this project's assignment one by one."""
    assigner, anchors = make_assigner(), predictions.anchors
    geometry = partial(assigner.candidates, anchors, targets)
    candidates = geometry()
    targets = targets.to(predictions.scores.device)
    costs = assigner.cost(predictions, targets, candidates)
    objects, levels = len(targets.boxes), len(anchors.strides)
    select = partial(cheapest_per_level, costs.cost, candidates, objects, levels, assigner.topk)
    chosen = select()
    positive = assigner.separate(costs.cost, chosen)
    steps = {
        "candidates": geometry,
        "cost": partial(assigner.cost, predictions, targets, candidates),
        "top 9": select,
        "mixture": partial(assigner.separate, costs.cost, chosen),
        "labels": partial(label_anchors, positive, chosen, candidates, anchors, targets, 80),
    }
    seconds = interleaved(steps, repeats=args.repeats or 11, turn=TURN, device=args.device)
    for name, value in seconds.items():
        report.figure(f"  {name}, {count} objects per image", value * 1e3, "ms")
