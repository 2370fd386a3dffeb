"""Whole detectors with regenerated weights, image in, detections out."""

import zlib
from pathlib import Path

import numpy as np
import torch
from detectron2.modeling.backbone import FPN

from lad.assignment.assigners import PAAAssigner
from lad.assignment.costs import PAACost
from lad.boxes import AnchorGenerator
from lad.checkpoint.convert import from_mmdetection
from lad.modeling.backbones.resnet import LastLevelP6P7NoReLU, build_resnet
from lad.modeling.heads import PAAHead
from lad.modeling.inference import Detector
from lad.modeling.losses import DetectionLosses
from lad.modeling.paa import PAA
from parity.dense import compare_detections
from parity.report import Report

NUM_CLASSES = 80


def build(depth: int) -> PAA:
    """Builds the PAA detector of the released checkpoints."""
    bottom_up = build_resnet(depth=depth)
    top_block = LastLevelP6P7NoReLU(256, 256, in_feature="p5")
    backbone = FPN(bottom_up, ["res3", "res4", "res5"], 256, top_block=top_block)
    return PAA(
        backbone=backbone,
        head=PAAHead(in_channels=256, num_classes=NUM_CLASSES),
        head_in_features=["p3", "p4", "p5", "p6", "p7"],
        anchor_generator=AnchorGenerator(),
        assigner=PAAAssigner(cost=PAACost(), num_classes=NUM_CLASSES),
        losses=DetectionLosses(),
        detector=Detector(),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )


def official_weights(data) -> dict[str, torch.Tensor]:
    """Regenerates the official state dict by the recipe of the fixtures' README."""
    state = {}
    for key, shape in zip(data["keys"], data["shapes"], strict=True):
        key, shape = str(key), tuple(int(n) for n in str(shape).split(",") if n)
        rng = np.random.RandomState((zlib.crc32(key.encode()) + int(data["seed"])) % 2**32)
        small = ".bn3." in key or (int(data["seed"]) == 18 and ".bn2." in key)
        last = key.rsplit(".", 1)[-1]
        if last == "num_batches_tracked":
            state[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        if last == "running_var":
            value = rng.uniform(0.5, 1.5, shape)
        elif last in ("running_mean", "bias"):
            value = rng.normal(0, 0.1, shape)
        elif last == "scale":
            value = rng.uniform(0.8, 1.2, shape)
        elif len(shape) == 1:
            value = rng.uniform(0.5, 1.0, shape) * (0.2 if small else 1.0)
        else:
            value = rng.normal(0, np.sqrt(1 / np.prod(shape[1:])), shape)
        state[key] = torch.as_tensor(value, dtype=torch.float32)
    state["bbox_head.atss_cls.bias"] += float(data["cls_bias_offset"])
    return state


@torch.no_grad()
def compare(path: Path, report: Report) -> None:
    """Compares FPN statistics, raw outputs and detections of one detector."""
    data = np.load(path)
    model = build(int(path.stem.rpartition("_r")[2])).eval()
    state, unused = from_mmdetection(official_weights(data))
    missing, unexpected = model.load_state_dict(state, strict=False)
    ours_alone = ("num_batches_tracked", "anchor_layout")
    leftover = [k for k in [*unused, *missing, *unexpected] if not k.endswith(ours_alone)]
    report.equal("parameters without counterpart", len(leftover), 0)
    image = torch.from_numpy(data["image_rgb"]).permute(2, 0, 1)
    inputs = [{"image": image, "height": image.shape[1], "width": image.shape[2]}]
    tensor = model.preprocess_image(inputs).tensor
    features = model.backbone(tensor)
    for level, name in enumerate(model.head_in_features):
        feature = features[name][0]
        report.compare(f"feat_l{level}_mean", feature.mean(dim=(1, 2)), data[f"feat_l{level}_mean"])
        spread = feature.std(dim=(1, 2))
        report.compare(f"feat_l{level}_std", spread, data[f"feat_l{level}_std"])
    predictions, anchors = model.predict(tensor)
    for name in ("cls", "reg", "iou"):
        values = {
            "cls": predictions.scores,
            "reg": predictions.deltas,
            "iou": predictions.quality[..., None],
        }[name]
        for level, part in enumerate(values.split(anchors.num_per_level, dim=1)):
            official = torch.from_numpy(data[f"{name}_l{level}"]).flatten(2).transpose(1, 2)
            report.compare(f"{name}_l{level}", part, official)
    detections = model(inputs)[0]["instances"]
    compare_detections("detections", detections, data["det_boxes"], data["det_labels"], report)
