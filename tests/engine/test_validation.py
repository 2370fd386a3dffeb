"""Losses on test images. That they change no training is in tests/test_detectors.py."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage
from test_setup import CONFIG
from torch import nn

from helpers import make_batch, make_fcos, make_lgd, make_paa, make_retinanet
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.engine.config import load_config
from lad.engine.hooks import EMAHook
from lad.engine.validation import build_loss_loader, mean_losses
from lad.modeling.distillation import LAD, CoLAD
from toy_training import ToyModel

BOXES = [[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]], []]
BATCHES = [make_batch([boxes], seed=seed) for seed, boxes in enumerate(BOXES)]
MODELS = {
    "paa": lambda: make_paa(0),
    "retinanet": lambda: make_retinanet(0),
    "fcos": lambda: make_fcos(0),
    "lad": lambda: LAD(student=make_paa(0), teacher=make_paa(1), distill_losses=[make_lgd()]),
    "colad": lambda: CoLAD(
        student=make_paa(0), teacher=make_paa(1), switch=RoleSwitch(indicator=StdMean())
    ),
}


def states(model):
    return [
        x.training_state() for x in model.modules() if callable(getattr(x, "training_state", None))
    ]


@pytest.mark.parametrize("name", MODELS)
def test_means_of_the_losses_of_training_and_nothing_changes(name):
    model = MODELS[name]().train()
    with EventStorage() as storage:
        sum(model(BATCHES[0]).values()).backward()  # as in the middle of a training
        before = copy.deepcopy(model.state_dict()), states(model), torch.get_rng_state()
        modes = [x.training for x in model.modules()]
        losses = mean_losses(model, BATCHES)
        assert not any(key.startswith("val/") for key in storage.latest())
    assert losses == mean_losses(model, BATCHES)
    assert all(torch.equal(x, before[0][k]) for k, x in model.state_dict().items())
    assert states(model) == before[1] and torch.equal(torch.get_rng_state(), before[2])
    assert [x.training for x in model.modules()] == modes
    # Networks without batch statistics and dropout: the same losses as in training.
    apart = []
    for batch in BATCHES:
        twin = copy.deepcopy(model)
        with EventStorage(), torch.no_grad():
            apart.append(twin(batch))
    for key in apart[0]:
        if name in ("paa", "colad"):  # the others divide by a moving mean in training
            mean = sum(x[key].item() for x in apart) / len(apart)
            assert losses[f"val/{key}"] == pytest.approx(mean, rel=1e-5)
    total = sum(x for k, x in losses.items() if k != "val/total_loss")
    assert losses["val/total_loss"] == pytest.approx(total)


@pytest.mark.parametrize("name", MODELS)
def test_averaged_weights_have_losses_too(name):
    model = MODELS[name]().train()
    losses = mean_losses(EMAHook(model, 0.9).model, BATCHES)
    assert losses == pytest.approx(mean_losses(model, BATCHES))


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
def test_detectron2s_losses_depend_on_weights_and_images_alone(make):
    model = make(0).train()
    losses = mean_losses(model, BATCHES)
    model.loss_normalizer = 1000.0  # of a training with large batches
    assert mean_losses(model, BATCHES) == losses
    apart = [mean_losses(model, [batch]) for batch in BATCHES]
    for name, loss in losses.items():
        assert loss == pytest.approx(sum(x[name] for x in apart) / len(apart))


def test_batch_norm_and_dropout_are_in_evaluation_mode():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.dropout = nn.BatchNorm1d(1), nn.Dropout(0.5)

        def forward(self, x):
            return {"loss": self.dropout(self.norm(x)).sum()} if self.training else x

    model = Net().train()
    assert mean_losses(model, [torch.tensor([[1.0], [3.0]])])["val/loss"] == pytest.approx(4, 1e-4)
    assert model.norm.num_batches_tracked == 0


def test_no_images():
    assert mean_losses(ToyModel(), []) == {}


def test_a_loader_that_cannot_give_labels():
    with pytest.raises(ValueError, match="train.eval_losses needs dataloader.test.mapper.is_train"):
        build_loss_loader(load_config(CONFIG))
