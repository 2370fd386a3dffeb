"""The config check: its report and its exit status."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import nn

import check_configs
from helpers import make_paa
from lad.engine.config import load_config

CONFIGS = Path(__file__).parents[1] / "configs"
PAA = str(CONFIGS / "digits/paa.py")
R18 = str(CONFIGS / "paa/r18_1x.py")
LAD = str(CONFIGS / "lad/r50_from_r101_1x.py")


class OneLoss(nn.Module):
    """A model with one given loss."""

    def __init__(self, loss):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.loss = loss

    def forward(self, batch):
        return {"loss": self.loss(self.weight)}


def test_parts_that_configs_share_are_left_out():
    found = check_configs.find_configs(str(CONFIGS / "*/*.py"))
    assert PAA in found and found == sorted(found)
    assert not any("/common/" in path for path in found)
    assert check_configs.find_configs("nowhere/*.py") == []


def test_overrides_shrink_a_config():
    plain = load_config(LAD)
    overrides = check_configs.short_overrides(plain, 20) + check_configs.scratch_overrides(plain)
    config = load_config(LAD, overrides)
    assert config.train.max_iter == 20 and config.dataloader.train.total_batch_size == 2
    assert config.optimizer.lr == pytest.approx(0.01 * 2 / 16)
    assert config.model.student_checkpoint == "" and config.model.teacher_checkpoint == "random"
    for _, detector in check_configs.detectors(config):
        assert detector.head.num_classes == 10
        assert detector.backbone.bottom_up.norm == "GN"
    # Of a detector without a head of ours, the classes are those of the whole.
    for name, keys in (
        ("retinanet", ["model.num_classes"]),
        ("fcos_lad", ["model.student.num_classes", "model.teacher.num_classes"]),
    ):
        plain = load_config(str(CONFIGS / f"digits/{name}.py"))
        overrides = check_configs.scratch_overrides(plain)
        assert [x for x in overrides if "classes" in x] == [f"{key}=10" for key in keys]
        load_config(str(CONFIGS / f"digits/{name}.py"), overrides)
    # A network that is made for training from scratch keeps its norm.
    plain = load_config(PAA)
    assert not any(".norm=" in text for text in check_configs.scratch_overrides(plain))


def test_report_of_good_and_bad_configs(tmp_path, capsys):
    (tmp_path / "bad.py").write_text("train = dict(max_iter=1)\n")
    assert check_configs.main([R18, "--quick"]) == 0
    good, total = capsys.readouterr().out.splitlines()
    assert good == "configs/paa/r18_1x.py: ok, 19.3 M parameters"
    assert total == "configs: 1 ok, 0 failed"
    assert check_configs.main([str(tmp_path / "*.py")]) == 1
    bad, total = capsys.readouterr().out.splitlines()
    assert "bad.py: FAILED, ValueError: " in bad and "defines no model" in bad
    assert total == "configs: 0 ok, 1 failed"


def test_no_config_is_an_error(capsys):
    with pytest.raises(SystemExit) as exit_:
        check_configs.main(["nowhere/*.py"])
    assert exit_.value.code == 2
    assert "nowhere/*.py matches no config" in capsys.readouterr().err


def test_large_configs_are_only_instantiated():
    done = check_configs.check(R18, quick=False, max_params=19, iterations=0)
    assert done == "19.3 M parameters, too large for a step"


def test_config_that_saving_changes_is_found(tmp_path, monkeypatch):
    config = load_config(PAA)
    check_configs.reload(config, str(tmp_path))
    other = load_config(PAA, ["train.max_iter=7"])
    monkeypatch.setattr(check_configs, "load_config", lambda path, trusted: other)
    with pytest.raises(ValueError, match="changes when it is saved"):
        check_configs.reload(config, str(tmp_path))


def test_step_is_the_models_own():
    model = make_paa()
    total = check_configs.training_step(model)
    assert total > 0 and model.head.class_logits.weight.grad.abs().sum() > 0
    assert check_configs.training_step(OneLoss(lambda w: 3 * w)) == 3


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda w: w * float("nan"), "loss not finite"),
        (lambda w: (w - 1).sqrt(), "gradients are missing or not finite"),
    ],
)
def test_step_that_is_not_finite(loss, message):
    with pytest.raises(ValueError, match=message):
        check_configs.training_step(OneLoss(loss))


def test_learning_rate_out_of_range_is_found():
    config = load_config(PAA)
    config.lr_multiplier = L(Constant)(value=2.0)
    with pytest.raises(ValueError, match="lr_multiplier"):
        check_configs.instantiate_parts(config)


class Constant:
    """A schedule."""

    def __init__(self, *, value):
        self.value = value

    def __call__(self, where):
        return self.value


class Finished:
    """A process that has ended."""

    def __init__(self, status):
        self.status = status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self):
        return self.status


def fake_training(monkeypatch, losses, status=0):
    """Replaces trainings by one that writes these losses; returns their arguments."""
    calls = []

    def start(arguments, log):
        calls.append(arguments)
        folder = next(x for x in arguments if x.startswith("train.output_dir=")).split("=")[1]
        Path(folder).mkdir()
        lines = [json.dumps({"iteration": i, "total_loss": x}) for i, x in enumerate(losses)]
        # The line after the training has no loss.
        lines.append(json.dumps({"iteration": len(losses), "bbox/AP": 1.0}))
        (Path(folder) / "metrics.json").write_text("\n".join(lines))
        Path(log).write_text("some lines\nrun.py: error: this\n")
        return Finished(status)

    monkeypatch.setattr(check_configs, "start_training", start)
    return calls


def test_training_compares_first_and_last_losses(monkeypatch, tmp_path, capsys):
    calls = fake_training(monkeypatch, [2.0] * 5 + [9.0] * 10 + [1.0] * 5)
    done = check_configs.train(PAA, load_config(PAA), 20, str(tmp_path / "run"))
    assert done == "loss 2.000 to 1.000"
    shown = shlex.split(capsys.readouterr().out)
    assert shown[:2] == ["python", "train_net.py"]
    assert "train.max_iter=20" in calls[0]


@pytest.mark.parametrize(
    ("losses", "status", "message"),
    [
        ([1.0] * 15 + [2.0] * 5, 0, "loss 1.000 to 2.000: it does not fall"),
        ([1.0] * 19 + [float("nan")], 0, "it does not fall"),
        ([2.0, 1.0], 2, "run.py: error: this"),
    ],
)
def test_training_that_fails(monkeypatch, tmp_path, losses, status, message):
    fake_training(monkeypatch, losses, status)
    with pytest.raises(ValueError, match=message):
        check_configs.train(PAA, load_config(PAA), 20, str(tmp_path / "run"))
