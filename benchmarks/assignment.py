"""The whole label assignment against the same steps in a loop over objects."""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, pairwise_iou
from fvcore.nn import giou_loss, sigmoid_focal_loss
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
    predictions = spread_predictions(IMAGES, anchors)
    assigner = make_assigner()
    variants = {}
    for count in counts:
        scene = assigner, predictions, random_targets(IMAGES, count, height, width)
        ways = {
            "this project": assign,
            "objects one by one": assign_one_by_one,
            "all as the official code": assign_as_official_code,
        }
        labels = [way(*scene) for way in ways.values()]
        for others in labels[1:]:
            check_labels(labels[0], others, count)
        variants.update({(count, name): partial(way, *scene) for name, way in ways.items()})
    seconds = interleaved(variants, repeats=args.repeats or 11, turn=TURN, device=args.device)
    for (count, name), value in seconds.items():
        report.figure(f"{name}, {count} objects per image", value * 1e3, "ms")
    for count, speedup in SPEEDUPS.items():
        if count in counts:
            ratio = seconds[count, "objects one by one"] / seconds[count, "this project"]
            report.at_least(f"assignment-speedup-{count}", ratio, speedup)
            ratio = seconds[count, "all as the official code"] / seconds[count, "this project"]
            report.figure(f"speed-up over the official way, {count} objects per image", ratio, "x")
    if {60, 300} <= set(counts):
        growth = seconds[300, "this project"] / seconds[60, "this project"]
        report.at_most("assignment-growth-60-to-300", growth, 5)
    for count in counts:
        targets = random_targets(IMAGES, count, height, width)
        report_steps(report, predictions, targets, count, args)
    if args.plot:
        plot(seconds, args.plot)


def make_assigner() -> PAAAssigner:
    """Returns the assigner of the shipped configs, for 80 classes."""
    return PAAAssigner(cost=PAACost(), num_classes=80)


def assign(assigner: PAAAssigner, predictions: DensePredictions, targets: Targets) -> Assignment:
    """Runs candidates, cost, top 9, mixture and labels as a training step does."""
    candidates = assigner.candidates(predictions.anchors, targets)
    targets = targets.to(predictions.scores.device)
    costs = assigner.cost(predictions, targets, candidates)
    return assigner.assign(costs, candidates, predictions.anchors, targets)


def assign_as_official_code(
    assigner: PAAAssigner, predictions: DensePredictions, targets: Targets
) -> Assignment:
    """Runs all steps as the official code and other implementations do.

    Candidates come from each image's matrix of IoUs, the focal loss takes one-hot targets, and a
    loop over objects takes the top 9, fits the mixture on the CPU and writes the labels.
    """
    targets = targets.to(predictions.scores.device)
    candidates = matrix_candidates(predictions.anchors, targets, assigner.min_iou)
    cost = one_hot_cost(predictions, targets, candidates)
    return label_one_by_one(assigner, cost, candidates, predictions.anchors, targets)


def assign_one_by_one(
    assigner: PAAAssigner, predictions: DensePredictions, targets: Targets
) -> Assignment:
    """Runs the official code's loop over objects on this project's candidates and costs."""
    candidates = assigner.candidates(predictions.anchors, targets)
    targets = targets.to(predictions.scores.device)
    cost = assigner.cost(predictions, targets, candidates).cost
    return label_one_by_one(assigner, cost, candidates, predictions.anchors, targets)


def matrix_candidates(anchors: Anchors, targets: Targets, min_iou: float) -> Candidates:
    """Returns the candidates of `iou_candidates`, in another order, from whole IoU matrices."""
    valid = anchors.valid(targets.image_sizes)
    levels = anchors.per_anchor(tuple(range(len(anchors.strides))))
    parts = []
    for image in range(len(valid)):
        objects = (targets.image == image).nonzero()[:, 0]
        if not len(objects):
            continue
        iou = pairwise_iou(Boxes(targets.boxes[objects]), Boxes(anchors.boxes))
        iou = iou.masked_fill(~valid[image], -1)
        best, which = iou.max(dim=0)
        owner = torch.where(best >= min_iou, objects[which], -1)
        for row, highest in enumerate(iou.amax(dim=1)):
            owner[iou[row] == highest] = objects[row]
        anchor = (owner >= 0).nonzero()[:, 0]
        gt = owner[anchor]
        parts.append(Candidates(targets.image[gt], anchor, gt, levels[anchor]))
    return Candidates(*map(torch.cat, zip(*parts, strict=True)))


def one_hot_cost(predictions: DensePredictions, targets: Targets, candidates: Candidates) -> Tensor:
    """Returns the costs of `PAACost` by fvcore's losses."""
    at = candidates.image, candidates.anchor
    scores = predictions.scores[at]
    one_hot = F.one_hot(targets.classes[candidates.gt], scores.shape[1]).to(scores)
    class_cost = sigmoid_focal_loss(scores, one_hot, alpha=0.25, gamma=2.0).sum(dim=1)
    anchors = predictions.anchors.boxes[candidates.anchor]
    boxes = predictions.coder.decode(anchors, predictions.regression[at])
    return class_cost + 1.3 * giou_loss(boxes, targets.boxes[candidates.gt])


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


def check_labels(batched: Assignment, looped: Assignment, count: int) -> None:
    """Raises RuntimeError where both ways do not give the same labels."""
    differing = int((batched.labels != looped.labels).sum() + (batched.gt != looped.gt).sum())
    if differing:
        raise RuntimeError(f"{differing} labels differ between the two ways at {count} objects")


def report_steps(
    report: Report,
    predictions: DensePredictions,
    targets: Targets,
    count: int,
    args: argparse.Namespace,
) -> None:
    """Times the steps of our assignment one by one: where the time goes."""
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


def plot(seconds: dict[tuple[int, str], float], path: Path) -> None:
    """Draws time against objects of both ways."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for name in ("objects one by one", "this project"):
        counts = [count for count, kind in seconds if kind == name]
        axes.plot(counts, [seconds[x, name] * 1e3 for x in counts], marker="o", label=name)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"objects per image ({IMAGES} images)",
        ylabel="ms",
        title="Label assignment of one batch",
    )
    axes.set_xticks(counts, [str(x) for x in counts])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
