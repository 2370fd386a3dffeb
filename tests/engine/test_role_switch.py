"""Roles over a training: forced, logged, saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import nn

from helpers import make_batch, make_paa
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.engine.role_switch import RoleSwitchHook
from lad.modeling.distillation import CoLAD
from lad.visualize import plot_roles

BATCHES = [make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]]], seed=seed) for seed in range(4)] + [
    make_batch([[]])
]


class Loader:
    """The batches, over and over."""

    def __iter__(self):
        while True:
            yield from BATCHES


def make_trainer(hook: RoleSwitchHook) -> SimpleTrainer:
    switch = RoleSwitch(indicator=StdMean())
    model = CoLAD(student=make_paa(0), teacher=make_paa(1), switch=switch)
    trainer = SimpleTrainer(model, Loader(), torch.optim.SGD(model.parameters(), 0.01))
    trainer.register_hooks([hook])
    return trainer


def run(trainer: SimpleTrainer, steps: int) -> list[dict]:
    """Trains and returns what was logged in each step."""
    logged = []
    with EventStorage(0) as trainer.storage:
        trainer.before_train()
        for trainer.iter in range(steps):
            trainer.before_step()
            trainer.run_step()
            trainer.after_step()
            values = trainer.storage.latest()
            logged.append({k: v[0] for k, v in values.items() if v[1] == trainer.iter})
            trainer.storage.step()
    return logged


def test_indicators_roles_and_their_share_are_logged(tmp_path):
    logged = run(make_trainer(RoleSwitchHook(output_dir=str(tmp_path))), 4)
    taught = [row["switch/student_taught"] for row in logged]
    for row in logged:
        student_teaches = row["switch/student"] >= row["switch/teacher"]
        assert row["switch/student_taught"] == float(student_teaches)
    assert logged[-1]["switch/student_share"] == pytest.approx(sum(taught) / 4)
    assert "loss" not in "".join(k for k in logged[0] if k.startswith("switch/"))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_role_is_forced_for_the_first_iterations_only(tmp_path, role):
    hook = RoleSwitchHook(output_dir=str(tmp_path), force=role, force_iterations=2)
    free = run(make_trainer(RoleSwitchHook(output_dir=str(tmp_path))), 1)[0]
    trainer = make_trainer(hook)
    logged = run(trainer, 4)
    assert [row["switch/student_taught"] for row in logged[:2]] == [float(role == "student")] * 2
    assert logged[0]["switch/student"] == pytest.approx(free["switch/student"])
    assert trainer.model.roles.forced is None


def test_own_labels_for_the_first_iterations_are_no_decision(tmp_path):
    hook = RoleSwitchHook(output_dir=str(tmp_path), force="own", force_iterations=2)
    logged = run(make_trainer(hook), 3)
    assert ["switch/student_taught" in row for row in logged] == [False, False, True]
    taught = logged[2]["switch/student_taught"]
    assert logged[2]["switch/student_share"] == taught, "the mean over the decisions alone"


@pytest.mark.parametrize(("start", "own"), [(0, True), (2, True), (3, False)])
def test_a_resumed_training_starts_with_the_roles_of_the_step_before(tmp_path, start, own):
    hook = RoleSwitchHook(output_dir=str(tmp_path), force="own", force_iterations=2)
    trainer = make_trainer(hook)
    trainer.start_iter = start
    trainer.before_train()  # in which an evaluation may be repeated
    assert trainer.model.roles.own_labels == own


def test_a_batch_without_objects_is_not_counted(tmp_path):
    logged = run(make_trainer(RoleSwitchHook(output_dir=str(tmp_path))), 5)
    assert "switch/student_taught" not in logged[4]


def test_the_state_is_plain_and_comes_back(tmp_path):
    trainer = make_trainer(
        RoleSwitchHook(output_dir=str(tmp_path), force="student", force_iterations=9)
    )
    run(trainer, 3)
    state = trainer._hooks[-1].state_dict()
    assert json.loads(json.dumps(state)) == {"steps": 3, "taught": 3.0, "student_taught": True}
    fresh = make_trainer(RoleSwitchHook(output_dir=str(tmp_path)))
    fresh._hooks[-1].load_state_dict(state)
    assert fresh._hooks[-1].state_dict() == state
    run(fresh, 0)
    assert fresh.model.roles.student_teaches is True
    later = make_trainer(RoleSwitchHook(output_dir=str(tmp_path)))
    run(later, 0)
    later._hooks[-1].load_state_dict(state)
    assert later.model.roles.student_teaches is True


def test_the_last_teacher_stays_for_a_batch_without_objects(tmp_path, monkeypatch):
    monkeypatch.setattr(Loader, "__iter__", lambda _: iter([BATCHES[-1]]))
    for student_teaches in (True, False):
        trainer = make_trainer(RoleSwitchHook(output_dir=str(tmp_path)))
        trainer._hooks[-1].load_state_dict(
            {"steps": 3, "taught": 3.0, "student_taught": student_teaches}
        )
        run(trainer, 1)
        assert trainer._hooks[-1].state_dict()["student_taught"] is student_teaches


def test_the_timeline_is_drawn_also_from_nothing(tmp_path):
    metrics = tmp_path / "metrics.json"
    metrics.write_text('{"iteration": 1, "switch/student": 0.2}\n{"cut off')
    plot_roles(metrics, tmp_path / "roles.png")
    assert (tmp_path / "roles.png").read_bytes().startswith(b"\x89PNG")
    metrics.write_text("")
    plot_roles(metrics, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"force": "both"}, "force='both': choose"), ({"force_iterations": 5}, "needs force")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RoleSwitchHook(output_dir="x", **options)


def test_a_model_without_a_switch_is_refused():
    hook = RoleSwitchHook(output_dir="x")
    hook.check(make_trainer(hook).model)
    for model in (make_paa(), nn.Linear(1, 1)):
        with pytest.raises(ValueError, match="needs a model with a switch"):
            hook.check(model)


def test_a_config_loads_without_matplotlib():
    path = Path(__file__).with_name("detector_config.py")
    code = (
        "import sys; from detectron2.config import LazyConfig, instantiate;"
        f"config = LazyConfig.load({str(path)!r}); config.train.output_dir = 'x';"
        "instantiate(config.train.hooks[0]); print('matplotlib' in sys.modules)"
    )
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join([tests, *filter(None, sys.path)])
    environment = os.environ | {"DETECTRON2_DATASETS": "nowhere", "PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False"]
