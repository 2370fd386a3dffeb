"""Evaluation of one network and of two."""

from __future__ import annotations

import torch
from omegaconf import OmegaConf

from lad.engine.evaluation import evaluate
from toy_training import PairModel, ToyEvaluator, ToyModel, ToyTestLoader


class Remember(ToyEvaluator):
    """Keeps the evaluators' output folders."""

    folders: list = []

    def __init__(self, *, output_dir=None):
        super().__init__(output_dir=output_dir)
        self.folders.append(output_dir)


def evaluator_node():
    root = OmegaConf.create(
        {
            "folder": "out",
            "evaluator": {"_target_": f"{__name__}.Remember", "output_dir": "${folder}/inference"},
        }
    )
    return root.evaluator


def expected(model):
    model.eval()
    with torch.no_grad():
        return sum(model(batch)[0]["number"].item() for batch in ToyTestLoader())


def test_one_network():
    Remember.folders.clear()
    model = ToyModel()
    results = evaluate(model, ToyTestLoader(), evaluator_node())
    assert model.training  # as before
    assert results == {"toy": {"AP": expected(model)}}
    assert Remember.folders == ["out/inference"]


def test_two_networks_have_a_folder_each():
    Remember.folders.clear()
    model = PairModel(student=ToyModel(), teacher=ToyModel())
    results = evaluate(model, ToyTestLoader(), evaluator_node())
    assert results == {
        "student/toy": {"AP": expected(model.student)},
        "teacher/toy": {"AP": expected(model.teacher)},
    }
    assert Remember.folders == ["out/inference/student", "out/inference/teacher"]
