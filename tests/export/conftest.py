"""Exported files of the short CoLAD training that several tests use."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.modeling.backbone import FPN

from lad.assignment.costs import PAACost
from lad.assignment.paa import PAAAssigner
from lad.export.describe import describe
from lad.export.write import export_detector
from lad.modeling.anchor_generator import AnchorGenerator
from lad.modeling.backbones.resnet import build_resnet
from lad.modeling.heads import PAAHead
from lad.modeling.losses import DetectionLosses
from lad.modeling.one_stage import OneStageDetector
from lad.modeling.postprocess import PostProcessor


@pytest.fixture(scope="session")
def onnx_file(colad, tmp_path_factory) -> Path:
    """The student for inputs of 96 x 96, the size of its test images."""
    from lad.cli.export_model import main

    path = tmp_path_factory.mktemp("exported") / "student.onnx"
    assert main([str(colad), "--size=96x96", f"--output={path}"]) == 0
    return path


@pytest.fixture(scope="session")
def two_levels() -> OneStageDetector:
    """A network of few operations, whose random scores can be ranked."""
    torch.manual_seed(0)
    bottom_up = build_resnet(
        depth=10, width=8, norm="BN", freeze_at=0, out_features=["res2", "res3"]
    )
    network = OneStageDetector(
        backbone=FPN(bottom_up, ["res2", "res3"], 32),
        head=PAAHead(in_channels=32, num_classes=3, num_levels=2, channels=32, num_convs=1),
        head_in_features=["p2", "p3"],
        anchor_generator=AnchorGenerator(strides=(4, 8)),
        assigner=PAAAssigner(cost=PAACost(), num_classes=3),
        losses=DetectionLosses(),
        postprocessor=PostProcessor(score_voting=False, topk_candidates=300),
        pixel_mean=[120.0] * 3,
        pixel_std=[60.0] * 3,
    ).eval()
    for layer in (network.head.class_logits, network.head.quality):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return network


@pytest.fixture(scope="session")
def dynamic_file(two_levels, tmp_path_factory) -> Path:
    """That network for inputs of any size, with NMS inside."""
    path = tmp_path_factory.mktemp("exported") / "dynamic.onnx"
    mapper = DatasetMapper(is_train=False, augmentations=[], image_format="RGB")
    data = describe(two_levels, mapper, class_names=["a", "b", "c"], nms=True)
    found = export_detector(two_levels, path, data, [noise(40, 60), noise(90, 50)])
    assert found.sizes == ((40, 64), (96, 56)) and found.detections > 3
    return path


def noise(height: int, width: int) -> np.ndarray:
    """An image."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
