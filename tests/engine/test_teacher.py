"""A training's frozen teacher: the names of its classes, its own AP."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from helpers import make_paa
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.engine.signals import StopSignals
from lad.engine.teacher import TeacherEvaluation, frozen_teacher, name_classes
from lad.modeling.distillation import LAD, CoLAD, Distillation


def config(names="coco_2017_train", **model):
    return OmegaConf.create(
        {"model": model, "dataloader": {"train": {"dataset": {"names": names}}}}
    )


def test_names_become_lists(tmp_path):
    (tmp_path / "teacher.txt").write_text("cat\ndog\n")
    cfg = config(teacher_classes=str(tmp_path / "teacher.txt"))
    for _ in range(2):  # also of a saved config
        name_classes(cfg)
        assert cfg.model.teacher_classes == ["cat", "dog"]
        assert len(cfg.model.student_classes) == 80
    cfg = config(teacher_classes=["cat"], student_classes=["kitten"])
    name_classes(cfg)
    assert cfg.model.student_classes == ["kitten"]


def test_nothing_is_asked_for():
    cfg = config(teacher_classes=None)
    name_classes(cfg)
    assert cfg == config(teacher_classes=None)


def test_a_teacher_of_other_data_is_told(tmp_path):
    def data(folder, *names):
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").touch()
        categories = [{"id": i, "name": name} for i, name in enumerate(names)]
        (folder / "data/train.json").write_text(json.dumps({"categories": categories}))
        return str(folder / "data/train.json")

    teacher, ours = tmp_path / "teacher", data(tmp_path / "student", "helmet", "head")
    theirs = data(teacher, "head", "helmet")
    target = "lad.modeling.distillation.LAD"
    options = {"_target_": target, "teacher_checkpoint": str(teacher / "model_final.pth")}
    with pytest.raises(ValueError, match=f"set model.teacher_classes={theirs}"):
        name_classes(config(ours, **options))
    name_classes(config(ours, teacher_classes=theirs, **options))
    name_classes(config(ours, **options | {"_target_": target.replace("LAD", "CoLAD")}))
    data(teacher, "helmet", "head")
    name_classes(config(ours, **options))


def test_a_dataset_without_name_is_one_line():
    with pytest.raises(ValueError, match="list them in model.student_classes"):
        name_classes(config(names=None, teacher_classes=["cat"]))
    with pytest.raises(ValueError, match="model.teacher_classes=coco80: it is no registered"):
        name_classes(config(teacher_classes="coco80"))


def test_which_models_have_a_frozen_teacher():
    pair = {"student": make_paa(0), "teacher": make_paa(1)}
    assert frozen_teacher(LAD(**pair))
    assert not frozen_teacher(LAD(**pair, eval_network="teacher"))
    assert not frozen_teacher(Distillation(student=make_paa(0)))
    assert not frozen_teacher(make_paa(0))
    pair = {"student": make_paa(0), "teacher": make_paa(1)}
    assert not frozen_teacher(CoLAD(**pair, switch=RoleSwitch(indicator=StdMean())))


def trained(hook, student_ap, *, start=0, losses=()):
    """Runs the hook through three iterations; the student is evaluated in the second and last."""
    with EventStorage(start) as storage:
        model = SimpleNamespace(distill_losses=losses)
        hook.trainer = SimpleNamespace(start_iter=start, storage=storage, model=model)
        hook.before_train()
        for iteration in range(start, 3):
            storage.iter = iteration
            if iteration == 1:
                storage.put_scalar("bbox/AP", student_ap)
            hook.after_step()
        storage.iter = 3
        storage.put_scalar("bbox/AP", student_ap)
        hook.after_train()
        return storage


def evaluation(calls):
    def evaluate():
        calls.append(1)
        return {"teacher/bbox": {"AP": 40.0, "AP50": 60.0}}

    return TeacherEvaluation(evaluate, signals=StopSignals())


def test_the_teacher_is_evaluated_once(caplog):
    calls = []
    hook = evaluation(calls)
    with caplog.at_level(logging.INFO, logger="lad"):
        storage = trained(hook, 30.0)
    assert calls == [1]
    assert storage.latest()["teacher/bbox/AP"] == (40.0, 0)
    assert hook.results == {"teacher/bbox/AP": 40.0, "teacher/bbox/AP50": 60.0}
    assert "The teacher's own bbox/AP: 40.0" in caplog.text
    assert "is above" not in caplog.text


def test_each_evaluation_of_a_better_student_warns(caplog):
    trained(evaluation([]), 40.5)
    lines = [x.getMessage() for x in caplog.records if "is above" in x.getMessage()]
    assert len(lines) == 2
    start = "The student's bbox/AP, 40.5, is above its teacher's, 40.0: use a better teacher"
    assert lines[0] == start, "LAD alone has no loss that could end"
    caplog.clear()
    trained(evaluation([]), 40.5, losses=[1])
    line = next(x for x in caplog.messages if "is above" in x)
    assert line == f"{start}, or let the loss end earlier (model.distill_losses.0.until)"


def test_a_resumed_training_knows_the_figures(caplog):
    calls = []
    first, resumed = evaluation(calls), evaluation(calls)
    trained(first, 30.0)
    resumed.load_state_dict(first.state_dict())
    storage = trained(resumed, 50.0, start=2)
    assert calls == [1] and "teacher/bbox/AP" not in storage.latest()
    assert "is above its teacher's, 40.0" in caplog.text
    caplog.clear()
    trained(evaluation(calls), 50.0, start=2)  # of a checkpoint without the figures
    assert calls == [1] and not caplog.text


@pytest.mark.parametrize("ap", [float("nan"), 10.0])
def test_undefined_figures_compare_as_nothing(ap, caplog):
    results = {"teacher/bbox": {"AP": float("nan")}}
    trained(TeacherEvaluation(lambda: results, signals=StopSignals()), ap)
    trained(TeacherEvaluation(dict, signals=StopSignals()), ap)  # another process
    assert "is above" not in caplog.text
