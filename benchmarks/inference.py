"""Inference of PAA against Detectron2's RetinaNet on the same detections; the cost of voting."""

from __future__ import annotations

import argparse
from functools import partial

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead
from torch import Tensor, nn

from benchmarks.measure import Report, interleaved
from benchmarks.scenes import STRIDES, make_anchors, parse_size, random_batch
from benchmarks.step import build_paa
from lad.assignment.assigners import cheapest_per_object
from lad.assignment.candidates import iou_candidates
from lad.modeling.postprocess import PostProcessor
from lad.ops.boxes import paired_iou
from lad.ops.coders import DeltaCoder
from lad.structures import Anchors, Candidates, DensePredictions, Grid, Targets

OBJECTS, BOXES = 100, 10  # objects per image, boxes per object: 1,000 candidates for NMS
FEATURES = ["p3", "p4", "p5", "p6", "p7"]
ANCHORS = 9  # of RetinaNet in a cell; PAA has one
BACKGROUND = -20.0  # logit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this mode's options."""
    parser.add_argument("--size", type=parse_size, default="800x1344", help="height x width")
    parser.add_argument("--batch", type=int, default=1)


def run(args: argparse.Namespace, report: Report) -> None:
    """Measures whole networks and post-processing alone."""
    height, width = args.size
    batch = random_batch(args.batch, OBJECTS, height, width)
    anchors = make_anchors(height, width)
    targets = Targets.from_instances([x["instances"] for x in batch])
    boxes = boxes_around(anchors, targets)
    predictions = paa_predictions(anchors, targets, boxes)
    paa = build_paa(50).to(args.device).eval()
    paa.head = FixedHead(paa.head, paa_outputs(predictions), args.device)
    retinanet = build_retinanet().to(args.device).eval()
    outputs = retinanet_outputs(anchors, targets, boxes)
    retinanet.head = FixedHead(retinanet.head, outputs, args.device)
    with torch.no_grad():
        found = [sum(len(x["instances"]) for x in model(batch)) for model in (paa, retinanet)]
        report.figure("detections of PAA", found[0], "boxes")
        report.figure("detections of RetinaNet", found[1], "boxes")
        networks = {"PAA R50": partial(paa, batch), "RetinaNet R50": partial(retinanet, batch)}
        seconds = interleaved(networks, repeats=args.repeats or 7, device=args.device)
        predictions = predictions_to(predictions, args.device)
        sizes = [(height, width)] * len(batch)
        postprocessors = {
            f"post-processing {name} voting": partial(
                PostProcessor(score_voting=voting), predictions, sizes
            )
            for name, voting in (("with", True), ("without", False))
        }
        repeats = 3 * (args.repeats or 7)
        post = interleaved(postprocessors, repeats=repeats, warmup=3, device=args.device)
    for name, value in (seconds | post).items():
        report.figure(name, value * 1e3, "ms")
    voting = post["post-processing with voting"] - post["post-processing without voting"]
    report.at_most("inference-voting", seconds["PAA R50"] / (seconds["PAA R50"] - voting), 1.10)
    report.at_most("inference-retinanet", seconds["PAA R50"] / seconds["RetinaNet R50"], 1.10)


Outputs = tuple[list[Tensor], ...]


class FixedHead(nn.Module):
    """Runs a head and returns given outputs: random weights detect nothing."""

    def __init__(self, head: nn.Module, outputs: Outputs, device: str):
        super().__init__()
        self.head = head
        self.activation = getattr(head, "activation", None)
        self.outputs = tuple([x.to(device) for x in maps] for maps in outputs)

    def forward(self, features: list[Tensor]) -> Outputs:
        """Returns the given outputs."""
        self.head(features)
        return self.outputs


def boxes_around(anchors: Anchors, targets: Targets) -> Candidates:
    """Returns the `BOXES` anchors of each object that overlap it most."""
    candidates = iou_candidates(anchors, targets)
    iou = paired_iou(anchors.boxes[candidates.anchor], targets.boxes[candidates.gt])
    chosen = cheapest_per_object(-iou, candidates, len(targets.boxes), BOXES).flatten()
    return Candidates(*(x[chosen[chosen >= 0]] for x in candidates))


def detected_logits(boxes: Candidates) -> Tensor:
    """Returns logits of 0.5 to 0.95."""
    generator = torch.Generator().manual_seed(1)
    return torch.logit(0.5 + 0.45 * torch.rand(len(boxes.gt), generator=generator))


def jittered(targets: Targets, boxes: Candidates) -> Tensor:
    """Returns the objects' boxes, moved by a few per cent of their size."""
    generator = torch.Generator().manual_seed(2)
    gt_boxes = targets.boxes[boxes.gt]
    size = (gt_boxes[:, 2:] - gt_boxes[:, :2]).repeat(1, 2)
    return gt_boxes + 0.04 * size * torch.randn(gt_boxes.shape, generator=generator)


def paa_predictions(anchors: Anchors, targets: Targets, boxes: Candidates) -> DensePredictions:
    """Returns dense predictions that detect these boxes."""
    shape = len(targets.image_sizes), len(anchors.boxes)
    scores = torch.full((*shape, 80), BACKGROUND)
    scores[boxes.image, boxes.anchor, targets.classes[boxes.gt]] = detected_logits(boxes)
    coder = DeltaCoder()
    deltas = torch.zeros(*shape, 4)
    deltas[boxes.image, boxes.anchor] = coder.encode(
        anchors.boxes[boxes.anchor], jittered(targets, boxes)
    )
    return DensePredictions(scores, "sigmoid", deltas, torch.full(shape, 2.0), anchors, coder)


def predictions_to(predictions: DensePredictions, device: str) -> DensePredictions:
    """Returns predictions with quality on another device."""
    anchors = predictions.anchors
    return predictions._replace(
        scores=predictions.scores.to(device),
        regression=predictions.regression.to(device),
        quality=predictions.quality.to(device),
        anchors=anchors._replace(boxes=anchors.boxes.to(device)),
    )


def paa_outputs(predictions: DensePredictions) -> Outputs:
    """Returns predictions as the outputs of the PAA head."""
    values = predictions.scores, predictions.regression, predictions.quality[..., None]
    return tuple(as_maps(x, predictions.anchors.grids) for x in values)


def retinanet_outputs(anchors: Anchors, targets: Targets, boxes: Candidates) -> Outputs:
    """Returns the outputs of RetinaNet's head that detect the same boxes."""
    maps = [torch.empty(1, 1, grid.height, grid.width) for grid in anchors.grids]
    own_anchors = torch.cat([x.tensor for x in anchor_generator()(maps)])
    index = boxes.anchor * ANCHORS + 4  # the square one of middle size
    shape = len(targets.image_sizes), len(own_anchors)
    scores = torch.full((*shape, 80), BACKGROUND)
    scores[boxes.image, index, targets.classes[boxes.gt]] = detected_logits(boxes)
    deltas = torch.zeros(*shape, 4)
    transform = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))
    deltas[boxes.image, index] = transform.get_deltas(own_anchors[index], jittered(targets, boxes))
    return as_maps(scores, anchors.grids, ANCHORS), as_maps(deltas, anchors.grids, ANCHORS)


def as_maps(values: Tensor, grids: tuple[Grid, ...], num_anchors: int = 1) -> list[Tensor]:
    """Returns (N, R, C) values as each level's (N, num_anchors * C, H_l, W_l)."""
    levels = values.split([num_anchors * x.height * x.width for x in grids], dim=1)
    return [
        x.reshape(len(x), grid.height, grid.width, -1).permute(0, 3, 1, 2).contiguous()
        for x, grid in zip(levels, grids, strict=True)
    ]


def anchor_generator() -> DefaultAnchorGenerator:
    """Returns the anchors of RetinaNet."""
    return DefaultAnchorGenerator(
        sizes=[[4 * stride * 2 ** (octave / 3) for octave in range(3)] for stride in STRIDES],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=list(STRIDES),
        offset=0.0,
    )


def build_retinanet() -> RetinaNet:
    """Returns Detectron2's RetinaNet on a ResNet-50, random weights."""
    bottom_up = ResNet(
        BasicStem(3, 64, norm="FrozenBN"),
        ResNet.make_default_stages(50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
    )
    return RetinaNet(
        backbone=FPN(bottom_up, ["res3", "res4", "res5"], 256, top_block=LastLevelP6P7(2048, 256)),
        head=RetinaNetHead(
            input_shape=[ShapeSpec(channels=256)] * len(STRIDES),
            num_classes=80,
            num_anchors=ANCHORS,
            conv_dims=[256] * 4,
        ),
        head_in_features=FEATURES,
        anchor_generator=anchor_generator(),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=80,
        pixel_mean=[103.53, 116.28, 123.675],
        pixel_std=[1.0, 1.0, 1.0],
    )
