"""Every config loads, instantiates and reloads; those of the paper have its settings."""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from check_configs import check, detectors, find_configs
from lad.engine.config import load_config

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = [str(Path(p).relative_to(CONFIGS)) for p in find_configs(str(CONFIGS / "*/*.py"))]
METHODS = ("paa", "cop", "soft_label", "lad", "solad", "colad")
PAPER = [x for x in FILES if x.split("/")[0] in METHODS]
TWO_NETWORKS = [x for x in PAPER if x.split("/")[0] not in ("paa", "cop")]
EPOCH = 7330  # ceil(117,266 / 16)
WEIGHTS = LazyConfig.load(str(CONFIGS / "common/weights.py"))
(RESNEXT,) = LazyConfig.load(str(CONFIGS / "common/weights.py"), ("RESNEXT101_64X4D",))


def load(name):
    return load_config(str(CONFIGS / name))


@lru_cache
def shapes(name, network=""):
    """Names and shapes of the weights of a config's model, or of one of its networks."""
    config = load(name).model
    with torch.device("meta"):
        model = instantiate(config[network] if network else config)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def imagenet_weights(detector):
    bottom_up = detector.backbone.bottom_up
    if "name" in bottom_up:
        assert bottom_up.name == "swin_base_patch4_window7_224"
        return WEIGHTS.SWIN["B"]
    if bottom_up.get("num_groups", 1) == 64:
        return RESNEXT
    return WEIGHTS.RESNET[bottom_up.depth]


def test_there_are_configs():
    assert len(FILES) > 50 and len(PAPER) > 40


@pytest.mark.parametrize("name", FILES)
def test_config_loads_saves_and_instantiates(name):
    check(str(CONFIGS / name), quick=True, max_params=0, iterations=0)
    config = load(name)
    assert config.train.output_dir == f"output/{name.removesuffix('.py')}"
    multiplier = instantiate(config.lr_multiplier)
    assert 0 <= multiplier(0.999) < multiplier(0.5) <= 1


@pytest.mark.parametrize(
    "name",
    [
        "digits/colad_fisher.py",
        "digits/soft_label_kl.py",
        "digits/solad.py",
        "cop/cop_no_iou_r18_1x.py",
        "cop/iop_r18_1x.py",
        "lad/r18_from_r50_1x.py",
    ],
)
def test_config_takes_a_step(name):
    assert ", loss " in check(str(CONFIGS / name), quick=False, max_params=200, iterations=0)


@pytest.mark.parametrize("name", PAPER)
def test_schedule_is_what_the_name_says(name):
    config = load(name)
    epochs, drops = {"1x": (12, [8, 11]), "2x": (24, [16, 22]), "3x": (36, [28, 34])}[
        re.search(r"_([123]x)", name).group(1)
    ]
    if "swin_b_from" in name:
        drops = [27, 33]  # Swin's recipe
    scheduler = config.lr_multiplier.scheduler
    assert config.train.max_iter == scheduler.num_updates == epochs * EPOCH
    assert list(scheduler.milestones) == [drop * EPOCH for drop in drops]
    long_warmup = re.search("soft_label/(kl_gamma0_|kl_gamma05|l1)", name)
    warmup = config.lr_multiplier.warmup_length * config.train.max_iter
    assert warmup == pytest.approx(3000 if long_warmup else 500)
    assert config.dataloader.train.total_batch_size == 16
    resize = config.dataloader.train.mapper.augmentations[0]
    if "swin_b_from" not in name:
        sides = resize.short_edge_length
        assert (sides if isinstance(sides, int) else tuple(sides)) == (
            (640, 800) if "_ms" in name else 800
        )


@pytest.mark.parametrize("name", PAPER)
def test_networks_start_from_imagenet_or_from_what_another_config_trains(name):
    config = load(name)
    if name not in TWO_NETWORKS:
        assert config.train.init_checkpoint == imagenet_weights(config.model)
        return
    assert config.train.init_checkpoint == ""
    assert config.model.student_checkpoint == imagenet_weights(config.model.student)
    teacher = config.model.teacher_checkpoint
    if "_from_" not in name:
        assert teacher == imagenet_weights(config.model.teacher)
        return
    _, method, trained, file = teacher.split("/")
    network = {"model_final.pth": "", "student.pth": "student"}[file]
    assert shapes(f"{method}/{trained}.py", network) == shapes(name, "teacher")


@pytest.mark.parametrize("name", PAPER)
def test_heads_are_what_the_name_says(name):
    config = load(name)
    stem = name.split("/")[1]
    (_, first), *others = detectors(config)
    objectness = re.match("cop|iop", stem)
    target = str(first.head.get("objectness", {}).get("_target_", ""))
    assert {"cop": "Conditional", "iop": "Implicit", None: ""}[
        objectness and objectness.group()
    ] in target
    assert bool(target) == bool(objectness)
    assert first.head.get("quality", True) == ("no_iou" not in stem)
    for _, teacher in others:
        assert bool(teacher.head.get("objectness")) == ("from_cop" in stem)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kl_gamma0_r50_from_r101_1x", ("kl", 0.0, 10.0, 0.1)),
        ("kl_gamma05_r50_from_r101_1x", ("kl", 0.5, 10.0, 0.1)),
        ("kl_gamma2_r50_from_r101_1x", ("kl", 2.0, 10.0, 0.1)),
        ("l1_r50_from_r101_1x", ("l1", 0.5, 10.0, 0.1)),
        ("l2_r50_from_r101_1x", ("l2", 0.5, 10.0, 0.1)),
        ("../solad/r50_from_r101_1x", ("kl", 0.5, 2.0, 0.5)),
    ],
)
def test_soft_labels_of_table_2(name, expected):
    (loss,) = load(f"soft_label/{name}.py").model.distill_losses
    assert (loss.kind, loss.gamma, loss.class_weight, loss.min_iou) == expected


@pytest.mark.parametrize("name", [x for x in PAPER if x.startswith("colad/") or "switch" in x])
def test_switches_are_what_the_name_says(name):
    config = load(name)
    assert ("Fisher" in str(config.model.switch.indicator._target_)) == ("fisher" in name)
    assert config.model.switch.scope == ("level" if "_level" in name else "iteration")
    assert len(config.train.hooks) == 1


def test_optimizers():
    sgd = load("lad/r50_from_r101_1x.py").optimizer
    assert (sgd.lr, sgd.momentum, sgd.weight_decay) == (0.01, 0.9, 1e-4)
    config = load("lad/switch_swin_b_from_cop_x101_dcn_3x_ms.py")
    with torch.device("meta"):
        config.optimizer.params.model = instantiate(config.model)
    groups = instantiate(config.optimizer).param_groups
    assert {group["lr"] for group in groups} == {1e-4}
    assert sorted({group["weight_decay"] for group in groups}) == [0.0, 0.05]
    student = config.optimizer.params.model.student
    undecayed = [p for g in groups if g["weight_decay"] == 0 for p in g["params"]]
    tables = [p for n, p in student.named_parameters() if "relative_position_bias_table" in n]
    norms = [
        p
        for module in student.modules()
        if isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm)
        for p in module.parameters()
    ]
    assert tables and {id(p) for p in undecayed} == {id(p) for p in tables + norms}


def test_half_of_swins_images_are_cropped_before_the_last_resize():
    config = LazyConfig.load(str(CONFIGS / "common/data/coco_detr.py"))
    config.train = OmegaConf.create({"seed": 0, "output_dir": ""})
    augmentations = instantiate(config.dataloader.train.mapper).augmentations
    np.random.seed(0)
    cropped, sides = 0, set()
    for _ in range(200):
        image = T.AugInput(np.zeros((48, 64, 3), np.uint8))
        transforms = augmentations(image).transforms
        cropped += any(isinstance(t, T.CropTransform) for t in transforms)
        height, width = image.image.shape[:2]
        assert max(height, width) <= 1333
        if max(height, width) < 1333:
            sides.add(min(height, width))
    assert 80 < cropped < 120
    assert sides <= set(range(480, 801, 32)) and len(sides) > 8
