"""Averaged weights, training state, best checkpoint and random state."""

from __future__ import annotations

import itertools
import logging
import random

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer, TrainerBase
from detectron2.utils import comm
from torch import nn

from helpers import make_batch, make_fcos, make_paa, make_retinanet
from lad.assignment.costs import PAACost
from lad.assignment.indicators import StdMean
from lad.assignment.paa import PAAAssigner
from lad.assignment.switch import RoleSwitch
from lad.engine.hooks import BestCheckpointer, EMAHook, IterationSeed, TrainingStateHook
from lad.modeling.distillation import LAD, CoLAD


class Steps(TrainerBase):
    """A trainer whose step adds one to the weight and takes the next metric."""

    def __init__(self, model, metrics=()):
        super().__init__()
        self.model = model
        self.metrics = dict(enumerate(metrics))

    def run_step(self):
        for p in self.model.parameters():
            p.data += 1
        if self.iter in self.metrics:
            self.storage.put_scalar("toy/AP", self.metrics[self.iter], smoothing_hint=False)


def make_model():
    model = nn.Linear(1, 1)
    model.weight.data.fill_(0)
    model.bias.data.fill_(0)
    model.bias.requires_grad_(False)
    model.register_buffer("count", torch.tensor(5))
    return model


def test_average_by_hand():
    model = make_model()
    hook = EMAHook(model, decay=0.15)
    trainer = Steps(model)
    trainer.register_hooks([hook])
    trainer.train(0, 2)
    # Weights 1, 2; decays min(0.15, 1/10) and min(0.15, 2/11), from 0.
    expected = 0.15 * (0.9 * 1) + 0.85 * 2
    assert hook.model.weight.item() == pytest.approx(expected)
    assert hook.model.bias.item() == 2  # not trained: copied
    assert not hook.model.training
    assert not any(p.requires_grad for p in hook.model.parameters())


def test_average_starts_from_the_weights_that_were_loaded():
    model = make_model()
    hook = EMAHook(model, decay=0.5)
    model.weight.data.fill_(8)
    model.count.fill_(6)
    trainer = Steps(model)
    trainer.register_hooks([hook])
    trainer.train(0, 0)
    assert hook.model.weight.item() == 8
    assert hook.model.count.item() == 6


def test_resumed_average_continues():
    def run(*spans):
        model, state = make_model(), None
        for start, stop in spans:
            hook = EMAHook(model, decay=0.9)
            trainer = Steps(model)
            trainer.register_hooks([hook])
            if state is not None:
                trainer.load_state_dict(state)
            trainer.train(start, stop)
            state = trainer.state_dict()
        return hook.model.weight.item()

    assert run((0, 3), (3, 6)) == run((0, 6))


def make_pair():
    """A student and a frozen teacher."""
    return LAD(student=make_paa(0), teacher=make_paa(1))


def test_frozen_teacher_is_shared_and_its_weights_are_not_saved():
    model = make_pair()
    hook = EMAHook(model, decay=0.5)
    assert hook.model.teacher is model.teacher
    assert hook.model.student is not model.student
    before = {key: value.clone() for key, value in model.teacher.state_dict().items()}
    trainer = StudentSteps(model)
    trainer.register_hooks([hook])
    trainer.train(0, 3)
    assert all(torch.equal(v, before[k]) for k, v in model.teacher.state_dict().items())
    averages = hook.state_dict()["model"]
    assert averages.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(key.startswith("student.") for key in averages)
    key = "student.head.class_logits.bias"
    assert not torch.equal(averages[key], model.state_dict()[key])
    assert model.student.training and not hook.model.student.training


class StudentSteps(Steps):
    """Adds one to what is trained."""

    def run_step(self):
        for p in self.model.parameters():
            if p.requires_grad:
                p.data += 1


def test_state_of_averages_that_held_all_weights_still_loads():
    model = make_pair()
    hook = EMAHook(model, decay=0.5)
    old = {key: torch.full_like(value, 7) for key, value in model.state_dict().items()}
    teacher = {key: value.clone() for key, value in model.teacher.state_dict().items()}
    trainer = StudentSteps(model)
    trainer.register_hooks([hook])
    trainer.load_state_dict({"iteration": 2, "hooks": {"EMAHook": {"model": old}}})
    trainer.train(3, 3)
    assert all(p.eq(7).all() for p in hook.model.student.parameters())
    assert all(torch.equal(v, teacher[k]) for k, v in model.teacher.state_dict().items())


def train_retinanet(model, steps, state=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trainer = SimpleTrainer(model, itertools.repeat(make_batch([BOXES])), optimizer)
    trainer.register_hooks([TrainingStateHook()])
    if state is not None:
        trainer.load_state_dict(state)
    trainer.train(0, steps)
    return trainer.state_dict()


BOXES = [[5.0, 5, 40, 50], [50.0, 10, 90, 60]]


def test_moving_normalizers_of_detectron2s_detectors_are_saved():
    first = train_retinanet(make_retinanet(), 2)
    (saved,) = first["hooks"]["TrainingStateHook"]["ranks"]
    assert saved[""]["loss_normalizer"] < 100  # its initial value
    model = make_retinanet()
    assert train_retinanet(model, 0, first)["hooks"] == first["hooks"]
    assert model.training_state() == saved[""]
    assert "hooks" not in train_retinanet(make_paa(), 1)


@pytest.mark.parametrize(("rank", "expected"), [(0, 5.0), (1, 7.0), (2, 5.0)])
def test_each_process_continues_with_its_own_normalizer(monkeypatch, rank, expected):
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    model = make_retinanet()
    ranks = [{"": {"loss_normalizer": value}} for value in (5.0, 7.0)]
    state = {"iteration": 0, "hooks": {"TrainingStateHook": {"ranks": ranks}}}
    trainer = Steps(model)
    trainer.register_hooks([TrainingStateHook()])
    trainer.load_state_dict(state)
    assert model.training_state() == {"loss_normalizer": expected}


def test_normalizers_of_two_networks():
    model = CoLAD(
        student=make_fcos(0, assigner=assigner()),
        teacher=make_fcos(1, assigner=assigner()),
        switch=RoleSwitch(indicator=StdMean()),
    )
    (saved,) = train_retinanet(model, 1)["hooks"]["TrainingStateHook"]["ranks"]
    assert saved.keys() == {"student", "teacher"}


def assigner():
    return PAAAssigner(cost=PAACost(), num_classes=3)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_impossible_decay(decay):
    with pytest.raises(ValueError, match=f"train.ema.decay={decay}"):
        EMAHook(make_model(), decay)


def run_best(folder, metrics, start=0, max_iter=None):
    model = make_model()
    hook = BestCheckpointer(eval_period=1, model=model, output_dir=str(folder), metric="toy/AP")
    trainer = Steps(model, metrics)
    trainer.register_hooks([hook])
    trainer.train(start, max_iter or len(metrics))
    return folder / "model_best.pth"


def read(file):
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    ("metrics", "best"), [([1, 3, 2], 1), ([float("nan"), 2, 1], 1), ([1, 1, 1], 0), ([1, 2, 3], 2)]
)
def test_best_checkpoint_holds_the_weights_of_the_highest_metric(tmp_path, metrics, best):
    saved = read(run_best(tmp_path, metrics))
    assert saved["metrics"] == {"toy/AP": metrics[best]}
    assert saved["iteration"] == best
    assert saved["model"]["weight"].item() == best + 1
    assert not (tmp_path / "last_checkpoint").exists()


def test_damaged_best_checkpoint_is_replaced(tmp_path):
    (tmp_path / "model_best.pth").write_bytes(b"cut off")
    assert read(run_best(tmp_path, [5]))["metrics"] == {"toy/AP": 5}


def test_best_checkpoint_survives_a_resume_with_worse_metrics(tmp_path):
    run_best(tmp_path, [5])
    assert read(run_best(tmp_path, [None, 4], start=1, max_iter=2))["metrics"] == {"toy/AP": 5}


def test_best_checkpoint_of_a_metric_that_is_not_evaluated(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        hook = BestCheckpointer(
            eval_period=1, model=make_model(), output_dir=str(tmp_path), metric="bbox/AP"
        )
        trainer = Steps(make_model(), [1.0, 2.0])
        trainer.register_hooks([hook])
        trainer.train(0, 2)
    assert "'bbox/AP' was not evaluated; known: toy/AP" in caplog.text
    assert not (tmp_path / "model_best.pth").exists()


class Draws(HookBase):
    """Draws from all generators in each step."""

    def __init__(self):
        self.values = []

    def after_step(self):
        self.values.append((random.random(), np.random.rand(), torch.rand(()).item()))


def draw(seed, start, stop):
    draws = Draws()
    trainer = Steps(make_model())
    trainer.register_hooks([IterationSeed(seed), draws])
    trainer.train(start, stop)
    return draws.values


def test_draws_depend_on_seed_and_iteration_only():
    whole = draw(1, 0, 4)
    assert len(set(whole)) == 4
    assert draw(1, 2, 4) == whole[2:]
    assert not set(draw(2, 0, 4)) & set(whole)


def test_resuming_with_another_seed_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        IterationSeed(1).load_state_dict({"seed": 1})
        assert not caplog.records
        IterationSeed(1).load_state_dict({"seed": 2})
    assert "train.seed=2" in caplog.text
