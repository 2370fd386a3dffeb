"""A step that has diverged ends in one line or is skipped, whatever the detector."""

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage
from test_rcnn import make_rcnn, with_masks

from helpers import make_batch, make_fcos, make_gfl, make_lgd, make_paa, make_retinanet
from lad.engine.signals import Failed
from lad.engine.trainer import Trainer
from lad.modeling.distillation import LAD, Distillation
from lad.modeling.heads import ConditionalObjectness, ImplicitObjectness

BATCH = with_masks(make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]]))


def make_cop(kind=ConditionalObjectness):
    return make_paa(0, objectness=kind(channels=32))


MODELS = {
    "paa": make_paa,
    "gfl": make_gfl,
    "cop": make_cop,
    "iop": lambda: make_cop(ImplicitObjectness),
    "lad with cop": lambda: LAD(student=make_cop(), teacher=make_paa(1)),
    "retinanet": make_retinanet,
    "fcos": make_fcos,
    "faster r-cnn": make_rcnn,
    "mask r-cnn with lgd": lambda: Distillation(
        student=make_rcnn(masks=True), distill_losses=[make_lgd(16, masks=True)]
    ),
}


class Loader(list):
    """Batches from the start."""

    def set_start(self, index):
        """Starts anywhere."""


def step(model, batch, **options) -> Trainer:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    trainer = Trainer(model.train(), Loader([batch]), optimizer, **options)
    trainer.iter = 0
    with EventStorage() as trainer.storage:
        trainer.run_step()
    return trainer


@pytest.mark.parametrize("name", MODELS)
def test_a_nan_in_an_image_is_one_line_or_skipped(name):
    batch = copy.deepcopy(BATCH)
    batch[0]["image"] = batch[0]["image"].float()
    batch[0]["image"][0, 0, 0] = torch.nan
    with pytest.raises(Failed, match=r"iteration 1: \S*loss\S* is nan"):
        step(MODELS[name](), batch)
    model = MODELS[name]()
    before = copy.deepcopy(model.state_dict())
    assert step(model, batch, skip_nonfinite=1).skipped == 1
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())
    assert step(model, BATCH).skipped == 0, "the next step is taken"


@pytest.mark.parametrize("name", MODELS)
def test_weights_that_are_not_finite_are_one_line(name):
    model = MODELS[name]()
    student = getattr(model, "student", model)
    next(p for p in student.parameters() if p.requires_grad).data.fill_(torch.inf)
    with pytest.raises(Failed, match=r"is nan.*1 weights were not finite before"):
        step(model, BATCH, skip_nonfinite=1)
