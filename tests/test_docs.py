"""The code in docs/architecture.md."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from helpers import make_batch, make_paa, make_retinanet
from lad.assignment.costs import PAACost
from lad.assignment.paa import PAAAssigner
from lad.modeling.distillation import LAD

PAGE = Path(__file__).parents[1] / "docs/architecture.md"
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
