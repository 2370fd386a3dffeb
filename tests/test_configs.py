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
RESNEXT, RESNEXT_32X8D = LazyConfig.load(
    str(CONFIGS / "common/weights.py"), ("RESNEXT101_64X4D", "RESNEXT101_32X8D")
)


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
        "digits/lad_lgd.py",
        "digits/retinanet_lgd.py",
        "digits/fcos_lgd.py",
        "digits/paa_pkd.py",
        "digits/lad_bckd.py",
        "digits/lad_crosskd.py",
        "digits/paa_pgd.py",
        "digits/gfl_lad_ld.py",
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


# Of LGD's released configs and its poster: where they differ from context, no detached appearance,
# distillation to the end and learning rate 0.01.
LGD = {
    "retinanet_x101_dcn_2x_ms": {"until": 13 / 18},
    "fcos_r50_2x_ms": {"context": False},
    "fcos_r101_dcn_2x_ms": {"until": 13 / 18},
    "fcos_x101_dcn_2x_ms": {"until": 13 / 18},
    "faster_rcnn_x101_dcn_2x_ms": {"until": 13 / 18},
    "mask_rcnn_swin_t_3x_ms": {"masks": True},
}
SCHEDULES = {
    "1x": (90_000, [60_000, 80_000]),
    "2x": (180_000, [120_000, 160_000]),
    "3x": (270_000, [210_000, 250_000]),
}


@pytest.mark.parametrize(
    "name", [Path(x).stem for x in FILES if x.startswith("lgd/") and "lad_" not in x]
)
def test_rows_of_lgd(name):
    config = load(f"lgd/{name}.py")
    rcnn, swin = "rcnn" in name, "swin" in name
    (loss,) = config.model.distill_losses
    defaults = {"context": not rcnn, "detach_appearance": rcnn, "until": 1.0, "masks": False}
    for key, value in (defaults | LGD.get(name, {})).items():
        default = {"context": True, "until": 1.0}.get(key, False)
        assert (loss if key == "until" else loss.teacher).get(key, default) == value, key
    max_iter, drops = SCHEDULES[re.search("[123]x", name).group()]
    assert config.train.max_iter == config.lr_multiplier.scheduler.num_updates == max_iter
    assert list(config.lr_multiplier.scheduler.milestones) == drops
    assert config.lr_multiplier.warmup_length * max_iter == pytest.approx(1000)
    starts = (30_000, 20_000) if max_iter > 90_000 else (15_000, 10_000)
    (freeze,) = config.train.hooks
    assert (loss.start * max_iter, freeze.until * max_iter) == pytest.approx(starts)
    assert config.optimizer.lr == (1e-4 if swin else 0.02 if rcnn else 0.01)
    assert config.train.clip_grad == {"enabled": True, "type": "value", "max": 1.0}
    sides = config.dataloader.train.mapper.augmentations[0].short_edge_length
    assert sides == (list(range(640, 801, 32)) if name.endswith("_ms") else 800)
    bottom_up = config.model.student.backbone.bottom_up
    assert bool(bottom_up.get("deform_stages")) == ("dcn" in name)
    if not swin:
        assert bottom_up.depth == int(re.search(r"_[rx](\d+)", name).group(1))
        assert ("x101" in name) == (bottom_up.get("num_groups", 1) == 32)
        expected = WEIGHTS.RESNET[bottom_up.depth] if "x101" not in name else RESNEXT_32X8D
    else:
        assert bottom_up.name == "swin_tiny_patch4_window7_224"
        expected = WEIGHTS.SWIN["T"]
    assert config.model.student_checkpoint == expected


def test_rows_of_gfl_and_ld():
    student, teacher = load("gfl/r50_1x.py"), load("gfl/r101_2x_ms.py")
    for config in (student, teacher):
        assert config.model.head.num_bins == 17 and config.model.coder.units_per_side == 8
        assert "ATSS" in str(config.model.assigner._target_)
    assert student.train.max_iter == 12 * EPOCH and teacher.train.max_iter == 24 * EPOCH
    sides = teacher.dataloader.train.mapper.augmentations[0].short_edge_length
    assert tuple(sides) == (480, 800)
    row = load("ld/r50_from_r101_1x.py")
    (loss,) = row.model.distill_losses
    assert instantiate(loss).temperature == 10
    assert row.model.student_checkpoint == WEIGHTS.RESNET[50]
    assert row.model.teacher_checkpoint == f"{teacher.train.output_dir}/model_final.pth"
    assert shapes("ld/r50_from_r101_1x.py", "teacher") == shapes("gfl/r101_2x_ms.py")
    assert row.train.init_checkpoint == "" and row.train.max_iter == 12 * EPOCH


def test_mask_rcnns_label_guided_teacher_has_its_own_weight_decay():
    config = load("lgd/mask_rcnn_swin_t_3x_ms.py")
    with torch.device("meta"):
        model = config.optimizer.params.model = instantiate(config.model)
    decay = {
        id(p): group["weight_decay"]
        for group in instantiate(config.optimizer).param_groups
        for p in group["params"]
    }
    assert {decay[id(p)] for p in model.distill_losses.parameters()} == {1e-4}
    assert {decay[id(p)] for p in model.student.parameters()} == {0.0, 0.05}


def test_a_row_of_lgd_without_its_loss_is_the_baseline():
    config = load_config(
        str(CONFIGS / "lgd/retinanet_r50_2x_ms.py"), ["model.distill_losses=[]"]
    ).model
    with torch.device("meta"):
        model = instantiate(config)
    assert not len(model.distill_losses) and model.teacher is None


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
