"""Checkpoints by the clock, and early stopping."""

from __future__ import annotations

import json
import os

import pytest
import torch
from detectron2.engine import SimpleTrainer

from lad.engine import stopping
from lad.engine.signals import StopSignals
from lad.engine.stopping import (
    Checkpointer,
    EarlyStop,
    LatestCheckpointer,
    RecentMetrics,
    StoppedEarly,
    is_due,
)
from toy_training import ToyModel, build_toy_loader


def make_trainer():
    model = ToyModel()
    return SimpleTrainer(model, build_toy_loader(), torch.optim.SGD(model.parameters(), 0.1))


def test_when_an_evaluation_is_due():
    assert [step for step in range(-1, 6) if is_due(step, 2, 6)] == [1, 3]  # not after the last
    assert not any(is_due(step, 0, 6) for step in range(-1, 6))


def test_the_newest_state_is_saved_by_the_clock(tmp_path, monkeypatch):
    trainer = make_trainer()
    checkpointer = Checkpointer(trainer.model, str(tmp_path), trainer=trainer)
    saved = []
    save = checkpointer.save
    monkeypatch.setattr(
        checkpointer, "save", lambda name, **x: (saved.append((name, x["iteration"])), save(name))
    )
    times = iter([0.0, *(10.0, 61.0, 61.0, 70.0)])
    monkeypatch.setattr(stopping.time, "monotonic", lambda: next(times))
    trainer.register_hooks([LatestCheckpointer(checkpointer, StopSignals(), minutes=1)])
    trainer.train(0, 3)
    assert saved == [("model_latest", 1)]
    assert (tmp_path / "last_checkpoint").read_text() == "model_latest.pth"
    assert {x.name for x in tmp_path.iterdir()} == {"model_latest.pth", "last_checkpoint"}


def test_a_checkpoint_of_others_counts_for_the_clock(tmp_path, monkeypatch):
    trainer = make_trainer()
    checkpointer = Checkpointer(trainer.model, str(tmp_path), trainer=trainer)
    checkpointer.save("model_0000001")
    hook = LatestCheckpointer(checkpointer, StopSignals(), minutes=1)
    hook.trainer = trainer
    times = iter([0.0, 100.0, 100.0])
    monkeypatch.setattr(stopping.time, "monotonic", lambda: next(times))
    hook.before_train()
    hook.after_step()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_a_process_killed_while_it_saves_leaves_the_old_file(tmp_path, monkeypatch):
    checkpointer = Checkpointer(ToyModel(), str(tmp_path))
    checkpointer.save("model_latest", iteration=1)

    def killed(_, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("model_latest", iteration=2)
    monkeypatch.undo()
    assert torch.load(tmp_path / "model_latest.pth", weights_only=True)["iteration"] == 1
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_latest.pth")


def test_recent_metrics_come_back():
    trainer, other = make_trainer(), make_trainer()
    trainer.register_hooks([RecentMetrics(2)])
    other.register_hooks([RecentMetrics(2)])
    trainer.train(0, 5)
    state = trainer.state_dict()["hooks"]["RecentMetrics"]
    assert [step for _, step in state["total_loss"]] == [3, 4]
    assert "data_time" not in state
    other._hooks[0].load_state_dict(state)
    other.train(5, 5)
    for name in state:
        assert other.storage.history(name).median(2) == trainer.storage.history(name).median(2)


def early(tmp_path, rows, start):
    """An EarlyStop of patience 2 at the start of a run that goes on."""
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, rows)))
    trainer = make_trainer()
    checkpointer = Checkpointer(trainer.model, str(tmp_path), trainer=trainer)
    trainer.register_hooks([EarlyStop(checkpointer, eval_period=1, metric="AP", patience=2)])
    trainer.train(start, start)
    return trainer


def test_early_stop_reads_only_evaluations_before_the_checkpoint(tmp_path):
    rows = [{"iteration": i, "AP": x} for i, x in enumerate([3.0, 2.0, None, 9.0])]
    early(tmp_path, rows, 2)  # one without a better value
    with pytest.raises(StoppedEarly, match="after iteration 3 of 3: 2 evaluations without"):
        early(tmp_path, rows, 3)
    early(tmp_path, rows, 4)
    assert os.path.isfile(tmp_path / "model_final.pth")


def test_early_stop_without_evaluations(tmp_path):
    early(tmp_path, [], 0)
    early(tmp_path, [{"iteration": 3, "total_loss": 1.0}], 4)
