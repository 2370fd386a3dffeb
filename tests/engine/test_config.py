"""Overrides, and one-line errors for wrong ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lad.engine.config import build, load_config, user_errors
from lad.engine.keys import parameters
from lad.engine.setup import build_optimizer
from toy_training import PairModel, ToyModel

CONFIG = str(Path(__file__).with_name("toy_config.py"))


class Forwarding(PairModel):
    """Takes its parent's parameters without naming them."""

    def __init__(self, *, own: int = 0, **networks):
        super().__init__(**networks)


def any_keyword(**keywords):
    return keywords


def load(*overrides):
    return load_config(CONFIG, overrides)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.max_iter=3", "train.max_iter", 3),
        ("train.amp.enabled=true", "train.amp.enabled", True),
        ("train.amp={enabled:true}", "train.amp.enabled", True),
        ("train.best.metric=toy/AP", "train.best.metric", "toy/AP"),
        ("train.seed=null", "train.seed", None),
        ("train.output_dir=/tmp/some where", "train.output_dir", "/tmp/some where"),
        ("train.max_iter=${train.log_period}", "train.max_iter", 1),
        ("model.fail_at=0.5", "model.fail_at", 0.5),  # a parameter that the config leaves out
        ("optimizer.nesterov=true", "optimizer.nesterov", True),
        ("optimizer.params.weight_decay_norm=0", "optimizer.params.weight_decay_norm", 0),
        (
            "lr_multiplier.scheduler.milestones.0=4",
            "lr_multiplier.scheduler.milestones.0",
            4,
        ),
    ],
)
def test_override_is_applied(override, key, value):
    config = load(override)
    for part in key.split("."):
        config = config[int(part)] if part.isdecimal() else config[part]
    assert config == value


def test_overrides_win_over_settings():
    settings = {"train.max_iter": 9, "train.seed": 5}
    config = load_config(CONFIG, ["train.max_iter=3"], settings)
    assert config.train.max_iter == 3 and config.train.seed == 5


def test_another_part_replaces_the_old_one_with_its_keys():
    part = "fvcore.common.param_scheduler.CosineParamScheduler"
    config = load(
        f"lr_multiplier.scheduler={{_target_:{part},start_value:1,end_value:0}}",
    )
    assert dict(config.lr_multiplier.scheduler) == {
        "_target_": part,
        "start_value": 1,
        "end_value": 0,
    }


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.max_iters=3", "train.max_iter"),
        ("max_iter=3", "train.max_iter"),
        ("train.amp.enable=true", "train.amp.enabled"),
        ("train.amp={enable:true}", "train.amp.enabled"),
        ("trian.amp.enabled=true", "train.amp.enabled"),
        ("model.chanels=3", "model.channels"),
        ("model.failat=3", "model.fail_at"),  # known from the signature alone
        ("model.channels_.x=3", "model.channels"),
        ("optimizer.nestrov=true", "optimizer.nesterov"),
        ("train.hooks.0=1", "train.hooks"),
        ("lr=1", "optimizer.lr"),
        ("checkpoint=a.pth", "train.init_checkpoint"),
        ("MODEL.WEIGHTS=a.pth", "train.init_checkpoint"),
    ],
)
def test_unknown_key_names_the_nearest(override, nearest):
    with pytest.raises(ValueError, match=rf"unknown key .*; the nearest known key is {nearest}$"):
        load(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_iter=ten", "train.max_iter=ten: expected a value like 6"),
        ("train.amp=true", r"train.amp is a section; set train.amp.KEY, KEY one of enabled, dtype"),
        ("train.amp=null", "train.amp is a section"),
        ("model=null", "model is a section"),
        ("model=foo", "model is a section"),
        ("train.max_iter.x=1", "train.max_iter is a value, not a section"),
        ("train.max_iter", "write path.key=value"),
        ("train.max_iter=[1", "write path.key=value"),
        ("~train.max_iter", "cannot be deleted"),
        ("train.max_iter=1,2", r"as a list, \[a,b\]"),
        ("--resume", "flags have to come before"),
    ],
)
def test_wrong_override_is_one_line(override, message):
    with pytest.raises(ValueError, match=message) as error:
        load(override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("node", "key", "known"),
    [
        (L(Forwarding)(), "own", True),
        (L(Forwarding)(), "teacher_checkpoint", True),  # through **networks
        (L(Forwarding)(), "techer", False),
        (L(nn.Sequential)(), "anything", False),
        (L(any_keyword)(), "anything", True),
        ({"_target_": "toy_training.ToyModel"}, "dropout", True),
        ({"_target_": "toy_training.ToyModel"}, "self", False),
        ({}, "anything", False),
    ],
)
def test_parameters_of_a_target_are_known(tmp_path, node, key, known):
    config = load()
    config.model = node
    file = str(tmp_path / "config.yaml")
    LazyConfig.save(config, file)
    if known:
        assert load_config(file, [f"model.{key}=1"], trusted=True).model[key] == 1
    else:
        with pytest.raises(ValueError, match=f"unknown key model.{key}"):
            load_config(file, [f"model.{key}=1"], trusted=True)


def test_saved_config_loads_with_overrides_and_builds_the_same(tmp_path):
    config = load("model.channels=5")
    file = str(tmp_path / "config.yaml")
    LazyConfig.save(config, file)
    again = load_config(file, ["model.dropout=0.5"])
    assert isinstance(again, DictConfig)
    model = instantiate(again.model)
    assert isinstance(model, ToyModel)
    assert (model.hidden.out_features, model.dropout.p) == (5, 0.5)


def test_missing_file_and_sections(tmp_path):
    with pytest.raises(ValueError, match="--config-file is missing"):
        load_config("")
    with pytest.raises(FileNotFoundError, match="--config-file nowhere.py: there is no such file"):
        load_config("nowhere.py")
    file = tmp_path / "half.py"
    file.write_text("model = dict()\ntrain = dict()\n")
    for name, text, reason in (
        ("broken.yaml", "a: [1", "line 1: it is no YAML that can be read: expected"),
        ("broken.py", "model = (", "cannot be loaded: SyntaxError"),
        ("import.py", "import nowhere_at_all", "cannot be loaded: ModuleNotFoundError"),
        ("empty.yaml", "", "it is empty|cannot be loaded"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name}: .*{reason}") as error:
            load_config(str(tmp_path / name))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="half.py: it defines no dataloader, optimizer, lr_mult"):
        load_config(str(file))


@pytest.mark.parametrize("error", [ValueError("a=1: no"), FileNotFoundError("b: not there")])
def test_user_errors_are_one_line_and_exit_code_2(error, capsys):
    with pytest.raises(SystemExit) as exit_, user_errors():
        raise error
    assert exit_.value.code == 2
    assert capsys.readouterr().err.endswith(f": error: {error}\n")


def test_other_errors_keep_their_traceback():
    with pytest.raises(TypeError), user_errors():
        raise TypeError("a bug")


def test_what_cannot_be_built_names_its_section():
    assert isinstance(build(load(), "model"), ToyModel)
    for override, message in (
        ("model.channels=2.5", "^model cannot be built from these values: TypeError: "),
        ("optimizer.lr=-1", "Invalid learning rate"),
        ("optimizer.lr=null", "^optimizer.lr=None: it has to be a finite number"),
    ):
        config = load(override)
        with pytest.raises(ValueError, match=message) as error:
            if "optimizer" in override:
                build_optimizer(config.optimizer, ToyModel())
            else:
                build(config, "model")
        assert "\n" not in str(error.value)


def test_shipped_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("quick/paa.py", "configs/quick/paa.py"):
        assert load_config(path).train.output_dir == "output/quick/paa"
    with pytest.raises(FileNotFoundError, match="--config-file quick/no.py: there is no such file"):
        load_config("quick/no.py")


def test_own_file_goes_before_a_shipped_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick/paa.py").write_text(OWN_CONFIG)
    assert load_config("quick/paa.py").train.output_dir == "output/mine"


OWN_CONFIG = """
from lad import get_config

base = get_config("quick/paa.py")
dataloader, lr_multiplier, model = base.dataloader, base.lr_multiplier, base.model
optimizer, train = base.optimizer, base.train
train.output_dir = "output/mine"
paa = get_config("common/models/backbones.py", "paa_timm_small")
model = paa("resnet10t", num_classes=3)
"""


def test_get_config_returns_values_and_functions():
    from lad import get_config

    assert get_config("quick/paa.py").train.epochs == 30
    train, dataloader = get_config("quick/paa.py", "train", "dataloader")
    assert train.epochs == 30 and "test" in dataloader
    with pytest.raises(FileNotFoundError, match="no.py: there is no such file, nor a config"):
        get_config("no.py")


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("train.max_itre = 5", "train.max_iter, and nothing reads it as ${train.max_itre}"),
        ("train.amp.enable = True", "train.amp.enabled"),
        ("train.ddp.broadcast_bufers = True", "train.ddp.broadcast_buffers"),
        ("train = dict(max_itre=5)", "train.max_iter,"),
        ("dataloader.evalutor = dict()", "dataloader.evaluator"),
        ("model.head.nun_classes = 5", "model.head.num_classes"),
        ("model.assigner.cost.x = 5", "model.assigner"),
        ("model.postprocesor = 5", "model.postprocessor"),
        ("dataloader.train.mapper.image_fromat = 'BGR'", "dataloader.train.mapper.image_format"),
        ("dataloader.train.mapper.augmentations[0].max = 5", "dataloader.train.mapper.augmentat"),
        ("optimizer.bets = True", "optimizer.betas"),
        ("lr_multiplier.warmup_lenght = 0.1", "lr_multiplier.warmup_length"),
        ("train.hooks = [dict(_target_='lad.engine.schedule.FreezeBackbone', untl=1)]", "train.ho"),
    ],
)
def test_unknown_key_in_a_file_names_the_nearest(line, nearest, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"{OWN_CONFIG}{line}\n")
    with pytest.raises(ValueError, match=r"mine\.py: unknown key .*; the nearest known") as error:
        load_config(str(file))
    assert f"key is {nearest}" in str(error.value)
    assert "\n" not in str(error.value)


def test_keys_of_ones_own_in_a_file(tmp_path):
    """Sections and keys that hooks read; parameters that the shipped configs leave out."""
    file = tmp_path / "mine.py"
    file.write_text(
        OWN_CONFIG
        + """
from detectron2.config import LazyCall as L
from lad.engine.schedule import FreezeBackbone

mine = dict(until=0.25, anything=dict(x=1))
train.until = 0.5
train.start = dict(at=1)
train.hooks = [
    L(FreezeBackbone)(until="${mine.until}"),
    L(FreezeBackbone)(until="${train.until}"),
    L(FreezeBackbone)(until="${...start.at}"),
]
train.ddp.static_graph = True
train.checkpointer.file_prefix = "mine"
model.postprocessor.score_voting = False
dataloader.train.mapper.keypoint_hflip_indices = None
optimizer.params.overrides = dict(anything=dict(lr=0.1))
"""
    )
    config = load_config(str(file))
    assert [hook.until for hook in config.train.hooks] == [0.25, 0.5, 1]
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    assert load_config(str(tmp_path / "config.yaml")).mine.anything.x == 1


def test_part_of_an_override_has_known_keys():
    part = "{_target_:fvcore.common.param_scheduler.CosineParamScheduler,start_valu:1}"
    message = (
        "unknown key lr_multiplier.scheduler.start_valu; the nearest known key is lr_multiplier.sch"
    )
    with pytest.raises(ValueError, match=message):
        load(f"lr_multiplier.scheduler={part}")


@pytest.mark.parametrize("key", ["train.amp.enabled", "train.checkpointer.period"])
def test_auto_where_it_has_a_meaning(key):
    assert OmegaConf.select(load(f"{key}=auto"), key) == "auto"
    with pytest.raises(ValueError, match=f"override {key}=often: expected a value like"):
        load(f"{key}=often")


class Pair(NamedTuple):
    first: int
    second: int = 0


class TakesAll:
    def __init__(self, **keywords):
        self.keywords = keywords


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Pair, {"first", "second"}),
        (TakesAll, None),
        (partial, None),
        (any_keyword, None),
        (Forwarding.forward, {"self", "inputs"}),
        ("nowhere.at.all", None),
    ],
)
def test_parameters_of_targets_of_every_kind(target, expected):
    found = parameters(DictConfig({"_target_": target}, flags={"allow_objects": True}))
    assert found == expected
