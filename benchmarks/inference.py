"""Inference of PAA against Detectron2's RetinaNet; the cost of post-processing and voting."""

from __future__ import annotations

import argparse
from functools import partial

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead

from benchmarks.measure import Report, interleaved
from benchmarks.scenes import STRIDES, make_anchors, parse_size, random_batch, random_targets
from benchmarks.step import build_paa
from lad.assignment.assigners import cheapest_per_object
from lad.assignment.candidates import iou_candidates
from lad.modeling.one_stage import OneStageDetector
from lad.modeling.postprocess import PostProcessor
from lad.ops.boxes import paired_iou
from lad.structures import Anchors, DensePredictions, Targets

OBJECTS, BOXES = 100, 10  # per image, and boxes around each: 1,000 candidates for NMS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this mode's options."""
    parser.add_argument("--size", type=parse_size, default="800x1344", help="height x width")
    parser.add_argument("--batch", type=int, default=1)


def run(args: argparse.Namespace, report: Report) -> None:
    """Measures whole networks without detections, and post-processing alone."""
    height, width = args.size
    batch = random_batch(args.batch, 0, height, width)
    paa = build_paa(50).to(args.device).eval()
    paa.postprocessor.score_thresh = 1.0  # random weights score sqrt(0.01 x 0.5)
    retinanet = build_retinanet(paa).to(args.device).eval()
    anchors = make_anchors(height, width, args.device)
    targets = random_targets(args.batch, OBJECTS, height, width)
    predictions = detecting(paa, anchors, targets.to(args.device))
    sizes = [(height, width)] * args.batch
    found = sum(map(len, PostProcessor()(predictions, sizes)))
    report.figure("detections of post-processing", found, "boxes")
    repeats = args.repeats or 7
    with torch.no_grad():
        networks = {"PAA R50": partial(paa, batch), "RetinaNet R50": partial(retinanet, batch)}
        seconds = interleaved(networks, repeats=repeats, device=args.device)
        post = {
            f"post-processing {name} voting": partial(
                PostProcessor(score_voting=voting), predictions, sizes
            )
            for name, voting in (("with", True), ("without", False))
        }
        seconds |= interleaved(post, repeats=3 * repeats, warmup=3, device=args.device)
    for name, value in seconds.items():
        report.figure(name, value * 1e3, "ms")
    voted = seconds["PAA R50"] + seconds["post-processing with voting"]
    plain = seconds["PAA R50"] + seconds["post-processing without voting"]
    report.at_most("inference-voting", voted / plain, 1.10)
    # RetinaNet's own post-processing is left out.
    report.at_most("inference-retinanet", voted / seconds["RetinaNet R50"], 1.10)


def detecting(model: OneStageDetector, anchors: Anchors, targets: Targets) -> DensePredictions:
    """Returns predictions that detect each object with the `BOXES` anchors that overlap it most."""
    candidates = iou_candidates(anchors, targets)
    iou = paired_iou(anchors.boxes[candidates.anchor], targets.boxes[candidates.gt])
    chosen = cheapest_per_object(-iou, candidates, len(targets.boxes), BOXES).flatten()
    image, anchor, gt, _ = (x[chosen[chosen >= 0]] for x in candidates)
    generator = torch.Generator().manual_seed(1)
    logits = torch.logit(0.5 + 0.45 * torch.rand(len(gt), generator=generator)).to(gt.device)
    boxes = targets.boxes[gt]
    noise = torch.randn(boxes.shape, generator=generator).to(gt.device)
    boxes = boxes + 0.04 * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2) * noise
    shape = len(targets.image_sizes), len(anchors.boxes)
    scores = boxes.new_full((*shape, model.num_classes), -20.0)
    scores[image, anchor, targets.classes[gt]] = logits
    deltas = boxes.new_zeros(*shape, 4)
    deltas[image, anchor] = model.coder.encode(anchors.boxes[anchor], boxes)
    quality = boxes.new_full(shape, 2.0)
    return DensePredictions(scores, "sigmoid", deltas, quality, anchors, model.coder)


def build_retinanet(paa: OneStageDetector) -> RetinaNet:
    """Returns Detectron2's RetinaNet on the backbone of a PAA detector, random weights."""
    return RetinaNet(
        backbone=paa.backbone,
        head=RetinaNetHead(
            input_shape=[ShapeSpec(channels=256)] * len(STRIDES),
            num_classes=paa.num_classes,
            num_anchors=9,
            conv_dims=[256] * 4,
        ),
        head_in_features=paa.head_in_features,
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[4 * stride * 2 ** (octave / 3) for octave in range(3)] for stride in STRIDES],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=list(STRIDES),
        ),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=paa.num_classes,
        pixel_mean=[0.0] * 3,
        pixel_std=[1.0] * 3,
    )
