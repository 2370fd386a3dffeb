"""Checks before a run, devices, seeds and optimizers."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import MetadataCatalog
from detectron2.solver.build import get_default_optimizer_params
from omegaconf import OmegaConf

from helpers import make_paa
from lad.engine.config import load_config
from lad.engine.setup import (
    build_optimizer,
    check_classes,
    check_run,
    dataset_names,
    last_checkpoint,
    resolve_device,
    set_up,
)
from toy_training import ToyModel

CONFIG = str(Path(__file__).with_name("toy_config.py"))


@pytest.fixture
def config(tmp_path):
    return load_config(CONFIG, [f"train.output_dir={tmp_path}/run"])


@pytest.fixture
def run(config):
    folder = Path(config.train.output_dir)
    folder.mkdir()
    return folder


def test_device():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="train.device='gpu': choose"):
        resolve_device("gpu")
    with pytest.raises(ValueError, match="device='gpu': choose 'auto', 'cpu' or 'mps'"):
        resolve_device("gpu", key="device", known=("cpu", "mps"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_device_that_is_not_there():
    with pytest.raises(ValueError, match="train.device=cuda: PyTorch finds no GPU"):
        resolve_device("cuda")


def test_fresh_run_and_its_output_folder(config):
    check_run(config, resume=False, eval_only=False)
    assert not Path(config.train.output_dir).exists()  # made later, by a start that works
    check_run(config, resume=True, eval_only=False)  # there is nothing to resume: a fresh start


def test_folder_of_another_run_is_refused_unless_resumed(config, run):
    content = {"model": {}, "trainer": {"iteration": 2}}
    torch.save(content, run / "model_0000002.pth")
    with pytest.raises(ValueError, match=r"run holds checkpoints .* --resume or choose another"):
        check_run(config, resume=False, eval_only=False)
    (run / "last_checkpoint").write_text("model_0000002.pth")
    found = check_run(config, resume=True, eval_only=False)
    assert found == (str(run / "model_0000002.pth"), (), None)
    assert last_checkpoint(str(run)) == found.path


def test_output_folder_that_cannot_be_made(config, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ValueError, match=r"train.output_dir=.*run is no folder"):
        check_run(config, resume=False, eval_only=False)


def test_missing_checkpoints(config, run):
    config.train.init_checkpoint = "nowhere.pth"
    with pytest.raises(FileNotFoundError, match="train.init_checkpoint=nowhere.pth: there is no"):
        check_run(config, resume=False, eval_only=False)
    (run / "last_checkpoint").write_text("gone.pth")
    with pytest.raises(FileNotFoundError, match="last_checkpoint names .*gone.pth, which does not"):
        check_run(config, resume=True, eval_only=False)


def test_nothing_to_evaluate(config):
    with pytest.raises(ValueError, match="--eval-only has nothing to evaluate"):
        check_run(config, resume=False, eval_only=True)
    del config.dataloader.evaluator
    with pytest.raises(ValueError, match="no dataloader.evaluator"):
        check_run(config, resume=False, eval_only=True)


@pytest.mark.parametrize("seed", [None, -1])
def test_random_seed_is_drawn_and_saved(config, run, seed):
    config.train.seed = seed
    set_up(config, argparse.Namespace(eval_only=False))
    assert config.train.seed >= 0
    assert load_config(str(run / "config.yaml")).train.seed == config.train.seed


def test_the_log_has_our_lines(config, run):
    set_up(config, argparse.Namespace(eval_only=False))
    logging.getLogger("lad.engine.somewhere").info("one line")
    (line,) = [x for x in (run / "log.txt").read_text().splitlines() if "one line" in x]
    assert "lad.engine.somewhere" in line


def test_evaluation_leaves_the_trainings_config(config, run):
    set_up(config, argparse.Namespace(eval_only=False))
    before = (run / "config.yaml").read_text()
    config.model.channels = 9
    set_up(config, argparse.Namespace(eval_only=True))
    assert (run / "config.yaml").read_text() == before
    assert load_config(str(run / "inference/config.yaml")).model.channels == 9
    assert config.train.output_dir == str(run)


def test_optimizer_state_of_config_lists_loads_with_weights_only(tmp_path):
    node = L(torch.optim.AdamW)(params=L(get_default_optimizer_params)(), betas=[0.8, 0.9], lr=1.0)
    model = ToyModel()
    model.hidden.requires_grad_(False)
    optimizer = build_optimizer(node, model)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 2  # only what is trained
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pth")
    state = torch.load(tmp_path / "optimizer.pth", weights_only=True)
    assert tuple(state["param_groups"][0]["betas"]) == (0.8, 0.9)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_iter=0", "train.max_iter=0: expected a whole number of at least 1"),
        ("train.max_iter=1.5", "train.max_iter=1.5"),
        ("train.log_period=0", "train.log_period=0"),
        ("train.eval_period=null", "train.eval_period=None"),
        ("train.checkpointer.period=0", "train.checkpointer.period=0"),
        ("train.checkpointer.max_to_keep=0", "train.checkpointer.max_to_keep=0"),
        ("train.seed=1.5", "train.seed=1.5: expected a whole number$"),
        ("train.output_dir=5", "train.output_dir=5: name a folder"),
    ],
)
def test_numbers_are_checked(override, message):
    with pytest.raises(ValueError, match=message):
        check_run(load_config(CONFIG, [override]), resume=False, eval_only=False)


def detector_config(dataset, model):
    """A config of which only model and data are looked at."""
    return OmegaConf.create(
        {"model": model, "dataloader": {"train": {"dataset": {"names": dataset}}}}
    )


@pytest.mark.parametrize(
    ("node", "keys"),
    [
        ({"head": {"num_classes": 3}}, "model.head.num_classes"),
        ({"head": {"num_classes": "${..num_classes}"}, "num_classes": 3}, "model.num_classes"),
        (
            {"student": {"num_classes": 3}, "teacher": {"head": {"num_classes": 3}}},
            "model.student.num_classes and model.teacher.head.num_classes",
        ),
        ({"student": {"num_classes": 3}, "teacher": None}, "model.student.num_classes"),
    ],
)
def test_classes_of_data_and_detector_have_to_agree(dataset_name, node, keys):
    MetadataCatalog.get(dataset_name).thing_classes = ["a", "b"]
    config = detector_config(dataset_name, node)
    with pytest.raises(ValueError, match=f"has 2 classes, the model 3: set {keys} to 2"):
        check_classes(make_paa(), config, "train")
    check_classes(make_paa(num_classes=2), config, "train")
    check_classes(ToyModel(), config, "train")
    check_classes(make_paa(), config, "test")  # no data sets


def test_dataset_names(config):
    assert dataset_names(config, "train") == []
    config.dataloader.train = {"dataset": {"names": "one"}}
    config.dataloader.test = {"dataset": {"names": ["one", "two"]}}
    assert dataset_names(config, "train") == ["one"]
    assert dataset_names(config, "test") == ["one", "two"]
