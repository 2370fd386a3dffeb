"""Which code YAML configs and overrides may name, and that nothing is fetched unasked."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.config import LazyCall, LazyConfig
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import OmegaConf
from torch import nn

import lad
from lad.engine import targets
from lad.engine.config import CONFIGS, load_config
from lad.engine.targets import (
    PARTS,
    TARGETS,
    UnsafeConfig,
    is_allowed,
    read_yaml,
    register_target,
    unsafe_values,
)

EXPERIMENTS = sorted(x for x in CONFIGS.glob("*/*.py") if x.parent.name != "common")


def names(value) -> set[str]:
    """The targets in plain values, as they are saved."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = set().union(*map(names, parts))
    if isinstance(value, dict) and "_target_" in value:
        target = value["_target_"]
        found.add(target if isinstance(target, str) else _convert_target_to_string(target))
    return found


@functools.cache
def shipped() -> dict[Path, set[str]]:
    """The targets of each shipped config."""
    configs = {path: LazyConfig.load(str(path)) for path in EXPERIMENTS}
    return {
        path: names(OmegaConf.to_container(config, resolve=False))
        for path, config in configs.items()
    }


def test_the_list_is_what_the_shipped_configs_name_and_no_more():
    used = set().union(*shipped().values())
    assert len(EXPERIMENTS) > 100
    assert not {name for name in used if not is_allowed(name)}
    # Only the writers to services are there for overrides: docs/training.md.
    writers = {f"lad.engine.writers.{x}Writer" for x in ("ClearML", "MLflow", "Wandb")}
    # Detectron2's own reading of images: configs of users, and runs saved before this project's.
    detectron2 = {f"detectron2.data.{x}" for x in ("DatasetMapper", "build_detection_test_loader")}
    assert TARGETS - used == writers | detectron2
    # A class of the parts is allowed without being listed.
    assert not {x for x in TARGETS if x.startswith(PARTS) and x[x.rfind(".") + 1].isupper()}


def test_the_shipped_configs_have_no_python_objects_in_yaml(tmp_path):
    for path in EXPERIMENTS[::10]:
        config = LazyConfig.load(str(path))
        LazyConfig.save(config, str(tmp_path / "config.yaml"))
        assert OmegaConf.to_yaml(read_yaml(str(tmp_path / "config.yaml"))) == OmegaConf.to_yaml(
            OmegaConf.load(tmp_path / "config.yaml")
        )


@pytest.mark.parametrize(
    "name",
    ["lad.assignment.costs.PAACost", "lad.ops.coders.DeltaCoder", "lad.modeling.heads.GFLHead"],
)
def test_classes_of_the_parts_are_allowed(name):
    assert is_allowed(name)


@pytest.mark.parametrize(
    "name",
    [
        "lad.predict.Predictor",
        "lad.modeling.heads.nn.Module",
        "lad.modeling.one_stage.DenseDetector",
        "lad.ops.boxes.pairwise_iou",
        "lad.modeling.heads._Private",
        "lad.modeling.nothing.Here",
        "lad.modelings.heads.PAAHead",
        "",
    ],
)
def test_what_is_imported_or_private_or_no_class_is_not(name):
    assert not is_allowed(name)


def test_registered_classes_are_allowed(monkeypatch):
    monkeypatch.setattr(targets, "_registered", set())

    class Mine(nn.Module):
        pass

    name = f"{__name__}.{Mine.__qualname__}"
    assert not is_allowed(name)
    assert lad.register_target(Mine) is Mine and is_allowed(name)
    assert register_target("my.own.Part") == "my.own.Part" and is_allowed("my.own.Part")
    assert not is_allowed("my.own.Part.method")


def test_values_that_can_run_code_are_found_by_their_keys():
    config = OmegaConf.create(
        {
            "a": {"_target_": "os.system", "x": [{"_target_": "lad.modeling.heads.PAAHead"}]},
            "b": ["${a.x}", "${oc.env:HOME}", "${..c.${b.0}}", {"_target_": nn.Linear}],
        },
        flags={"allow_objects": True},
    )
    assert unsafe_values(config) == {"a._target_": "os.system", "b.1": "${oc.env:HOME}"}
    assert unsafe_values(OmegaConf.create({})) == {}


def test_a_python_config_is_code_and_its_overrides_are_not(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from detectron2.config import LazyCall as L\nfrom torch import nn\n"
        "from lad import get_config\n"
        "dataloader, lr_multiplier, optimizer, train = get_config(\n"
        '    "quick/paa.py", "dataloader", "lr_multiplier", "optimizer", "train")\n'
        "model = L(nn.Linear)(in_features=2, out_features=3)\n"
    )
    assert load_config(str(file), ["model.in_features=4"]).model.in_features == 4
    part = "model={_target_:torch.nn.Bilinear,in1_features:1,in2_features:1,out_features:1}"
    with pytest.raises(ValueError, match=r"^override model._target_=torch.nn.Bilinear is refused"):
        load_config(str(file), [part])
    assert load_config(str(file), [part], trusted=True).model._target_ == "torch.nn.Bilinear"


def test_aliases_of_moderate_size_are_read(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("a: &a {b: [1, 2]}\nc: *a\nd: [*a, *a]\n")
    assert read_yaml(str(file)).d[1].b[1] == 2
    file.write_text("a: &a [1]\nb: {<<: &b {c: *b}}\n")
    with pytest.raises(UnsafeConfig, match="^it is refused: an alias stands for itself"):
        read_yaml(str(file))


OFFLINE = """
import socket

def refuse(*args, **kwargs):
    raise AssertionError("the network is used")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
import torch
import lad.predict, lad.cli.main, lad.engine.run
from lad.engine.config import build, load_config
for name in ("quick/lad.py", "mobile/lad_resnet10t_from_r50_1x.py"):
    config = load_config(name)
    with torch.device("meta"):
        model = build(config, "model")
    print(name, len(list(model.parameters())) > 100)
"""


def test_nothing_comes_from_the_network_at_import_and_in_building():
    result = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("True") == 2


def test_lazy_calls_of_objects_are_left_alone():
    config = OmegaConf.create({"a": LazyCall(nn.Linear)(in_features=1, out_features=1)})
    assert unsafe_values(config) == {}
