"""The code in docs/architecture.md and docs/data.md, and a command of docs/backbones.md."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

import train_net
from helpers import make_batch, make_paa, make_retinanet
from labeled_folders import write_coco
from lad.assignment.costs import PAACost
from lad.assignment.paa import PAAAssigner
from lad.checkpoint import load_weights
from lad.engine.config import load_config
from lad.modeling.distillation import LAD

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], []])


@pytest.fixture(scope="module")
def code() -> dict:
    """The names that the page's Python blocks define."""
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    return names


def step(model) -> dict[str, torch.Tensor]:
    with EventStorage():
        losses = model.train()(BATCH)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    return losses


def test_the_assigner_trains_and_can_be_taught(code):
    assigner = code["CheapestAssigner"](num_classes=3, topk=5)
    assert step(make_paa(assigner=assigner))["loss_box_reg"] > 0
    model = LAD(student=make_paa(assigner=assigner), teacher=make_paa(1))
    assert step(model)["loss_box_reg"] > 0


def test_the_distillation_loss_trains_its_parameters(code):
    loss = code["FeatureLoss"](channels=32, teacher_channels=32)
    model = LAD(student=make_paa(0), teacher=make_paa(1), distill_losses=[loss])
    assert step(model)["loss_feature"] > 0
    assert loss.adapter.weight.grad.abs().sum() > 0


def test_the_detector_is_a_student_and_a_teacher(code):
    def build(**options):
        twin = make_retinanet(0)
        parts = ("backbone", "head", "head_in_features", "anchor_generator", "anchor_matcher")
        return code["MyNetwork"](
            **{name: getattr(twin, name) for name in parts},
            box2box_transform=twin.box2box_transform,
            num_classes=3,
            pixel_mean=[0.0] * 3,
            pixel_std=[1.0] * 3,
            **options,
        )

    assert step(build()).keys() == {"my_loss_cls", "my_loss_box_reg"}
    assigner = PAAAssigner(cost=PAACost(), num_classes=3)
    losses = step(LAD(student=build(assigner=assigner), teacher=build()))
    assert losses.keys() == {"my_loss_cls", "my_loss_box_reg"}


def own_configs() -> list[str]:
    """The configs of docs/data.md: a detector's and a LAD student's."""
    page = (ROOT / "docs/data.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return [block for block in blocks if "get_config" in block]


SMALL = [
    "train.max_iter=2",
    "train.eval_period=0",
    "train.device=cpu",
    *(f"dataloader.{split}.num_workers=0" for split in ("train", "test")),
    *(
        f"dataloader.{split}.mapper.augmentations=[{{_target_:"
        "detectron2.data.transforms.ResizeShortestEdge,short_edge_length:64,max_size:64}]"
        for split in ("train", "test")
    ),
]


def test_the_config_of_ones_own_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "anywhere").mkdir()
    (tmp_path / "anywhere/mine.py").write_text(own_configs()[0])
    classes = {1: "a", 2: "b", 3: "c"}
    for split in ("train", "val"):
        images = {f"{split}{i}.jpg": [(1 + i % 3, (8, 4, 40, 30))] for i in range(4)}
        write_coco(tmp_path / f"my_data/{split}.json", tmp_path / "my_data", images, classes)
    train_net.main(["--config-file", "anywhere/mine.py", *SMALL])
    assert (tmp_path / "output/mine/model_final.pth").is_file()
    metrics = (tmp_path / "output/mine/metrics.json").read_text().splitlines()
    assert json.loads(metrics[-1])["iteration"] == 2


def test_the_config_of_a_student_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(own_configs()[1])
    config = load_config(str(tmp_path / "mine.py"))
    assert config.model.teacher.head.channels == 96
    # It differs from the shipped one in its output folder only.
    shipped = load_config("quick/lad.py")
    shipped.train.output_dir = config.train.output_dir
    assert config == shipped


def test_the_command_for_weights_of_timm(tmp_path):
    page = (ROOT / "docs/backbones.md").read_text()
    (line,) = re.findall(r"^    (python -c .*timm.*)$", page, re.MULTILINE)
    _, *arguments = shlex.split(line.replace("pretrained=True", "pretrained=False"))
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True)
    config = load_config("mobile/lad_resnet10t_from_r50_1x.py")
    with torch.device("meta"):
        backbone = instantiate(config.model.student.backbone.bottom_up)
    backbone.to_empty(device="cpu")
    report = load_weights(backbone, str(tmp_path / config.model.student_checkpoint))
    assert not report.missing and not report.mismatched


def test_addresses_of_weights_end_in_the_files_names():
    text = (ROOT / "configs/common/weights.py").read_text()
    files = re.findall(r'"weights/(.+)"', text)
    addresses = re.findall(r"^# (https://\S+/(\S+))$", text, re.MULTILINE)
    assert len(files) == 8
    assert set(files) <= {name for _, name in addresses}
