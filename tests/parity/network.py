"""Whole detectors with regenerated weights, image in, detections out."""

import zlib
from pathlib import Path

import numpy as np
import torch
from detectron2.config import LazyConfig, instantiate

from lad.checkpoint.convert import from_mmdetection
from lad.modeling.one_stage import OneStageDetector
from parity.dense import compare_detections
from parity.report import Report

CONFIGS = Path(__file__).parents[2] / "configs"
# The longer schedules have the same networks.
BACKBONES = {
    **{f"r{depth}": f"r{depth}_1x" for depth in (18, 50, 101)},
    **dict.fromkeys(("x101", "x101_64x4d"), "x101_2x_ms"),
    **dict.fromkeys(("x101_dcn", "x101_64x4d_dcn"), "x101_dcn_2x_ms"),
}


class UnknownNetworkError(ValueError):
    """No config of the project builds the network that a fixture's name says."""


def config_of(name: str) -> Path:
    """Returns the project's config of the network that a fixture's name says.

    Example:
        net_paa_x101_64x4d is configs/paa/x101_2x_ms.py, net_cop_r50 is configs/cop/cop_r50_1x.py.

    Args:
        name: net_FAMILY_BACKBONE; the family is paa, cop or iop, or cop_no_iou or iop_no_iou.

    Raises:
        UnknownNetworkError: when the project has no config for it.
    """
    for backbone, stem in BACKBONES.items():
        family = name.removeprefix("net_").removesuffix(f"_{backbone}")
        path = CONFIGS / ("paa" if family == "paa" else "cop")
        path /= f"{stem}.py" if family == "paa" else f"{family}_{stem}.py"
        if name == f"net_{family}_{backbone}" and path.exists():
            return path
    raise UnknownNetworkError(
        f"{name}: no config for it; the name is net_FAMILY_BACKBONE with a backbone of "
        f"{', '.join(BACKBONES)} and a family of configs/paa or configs/cop"
    )


def build(name: str) -> OneStageDetector:
    """Builds the detector of a fixture, random weights."""
    return instantiate(LazyConfig.load(str(config_of(name))).model)


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
    model = build(path.stem).eval()
    state, unused = from_mmdetection(official_weights(data))
    missing, unexpected = model.load_state_dict(state, strict=False)
    ours_alone = ("num_batches_tracked", "anchor_layout")
    leftover = [k for k in [*unused, *missing, *unexpected] if not k.endswith(ours_alone)]
    report.equal("parameters without counterpart", len(leftover), 0)
    image = torch.from_numpy(data["image_rgb"]).permute(2, 0, 1)
    inputs = [{"image": image, "height": image.shape[1], "width": image.shape[2]}]
    features = model.extract(model.preprocess_image(inputs))
    for level, (feature,) in enumerate(features):
        report.compare(f"feat_l{level}_mean", feature.mean(dim=(1, 2)), data[f"feat_l{level}_mean"])
        spread = feature.std(dim=(1, 2))
        report.compare(f"feat_l{level}_std", spread, data[f"feat_l{level}_std"])
    predictions = model.predict(features)
    outputs = {"cls": predictions.scores, "reg": predictions.regression}
    if predictions.quality is not None:
        outputs["iou"] = predictions.quality[..., None]
    for name, values in outputs.items():
        for level, part in enumerate(values.split(predictions.anchors.num_per_level, dim=1)):
            official = torch.from_numpy(data[f"{name}_l{level}"]).flatten(2).transpose(1, 2)
            report.compare(f"{name}_l{level}", part, official)
    detections = model(inputs)[0]["instances"]
    compare_detections("detections", detections, data["det_boxes"], data["det_labels"], report)
