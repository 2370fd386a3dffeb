"""Faults of trust: configs, overrides and checkpoints that try to run code."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from detectron2.config import LazyConfig
from PIL import Image

from faults.case import Case, Outcome, Printed, call, refused
from lad.cli import (
    check_dataset,
    convert_checkpoint,
    export_model,
    export_network,
    inspect_assignment,
    predict,
)
from lad.engine import run
from lad.engine.config import build, load_config
from lad.engine.targets import is_allowed

TOY = Path(__file__).parents[1] / "engine/toy_config.py"
MARKER = "marker"  # the file that evil code writes
# Error lines must not advise what runs the code after all.
ADVICE = ("--unsafe", "weights_only=", "--trust")
Main = Callable[[Sequence[str]], int | None]


@functools.cache
def plain_config() -> str:
    """The toy config as YAML."""
    path = Path(os.environ.get("TMPDIR", "/tmp"), f"faults-{os.getpid()}.yaml")
    LazyConfig.save(load_config(str(TOY)), str(path))
    text = path.read_text()
    path.unlink()
    return text


def config_file(folder: Path, changes: dict[str, Any] | None = None, text: str = "") -> Path:
    """Writes config.yaml: the toy config, with top-level sections replaced and text behind."""
    folder.mkdir(exist_ok=True)
    path = folder / "config.yaml"
    content = {**yaml.safe_load(plain_config()), **(changes or {})}
    path.write_text(yaml.safe_dump(content) + text)
    return path


def train(folder: Path, *arguments: str | Path) -> Printed:
    """Starts a training of two steps into ``folder``/run."""
    out = [f"train.output_dir={folder / 'run'}", "train.max_iter=2", "train.eval_period=0"]
    return call(run.main, ["--config-file", *arguments, *out])


def kept_out(folder: Path, printed: Printed, *words: str) -> Outcome:
    """Checks that nothing ran, nothing was left and the line advises nothing that would run it."""
    assert not (folder / MARKER).exists(), f"the code has run: {printed.text[-500:]}"
    assert not (folder / "run").exists(), "a refused start has left a folder"
    outcome = refused(printed, *words)
    assert not (folder / MARKER).exists()
    return outcome


def no_advice(printed: Printed) -> None:
    found = [word for word in ADVICE if word in printed.text]
    assert not found, f"it advises {found}: {printed.text[-500:]}"


# YAML that is more than data; {m} is the path of the marker.
TAGS = {
    "calls os.system": "!!python/object/apply:os.system ['touch {m}']",
    "calls eval": "!!python/object/apply:builtins.eval [\"open('{m}', 'w')\"]",
    "calls exec": "!!python/object/apply:builtins.exec [\"open('{m}', 'w')\"]",
    "makes a Popen": "!!python/object/new:subprocess.Popen [['touch', '{m}']]",
    "calls with a state": "!!python/object/new:os.system {{args: ['touch {m}'], state: {{}}}}",
    "makes an object": "!!python/object:types.SimpleNamespace {{a: 1}}",
    "names a function": "!!python/name:os.system",
    "names a module": "!!python/module:os",
    "has a tuple": "!!python/tuple [1, 2]",
    "has a complex number": "!!python/complex 1j",
    "has a tag of its own": "!run 'touch {m}'",
    "uses a tag's long form": "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch {m}']",
}
# YAML that is no config.
TEXTS = {
    "is empty": "",
    "is a list": "[1, 2]",
    "is a number": "3",
    "is cut off": "model: {_target_: [",
    "is binary": "\x00\x01\x02",
    "has two documents": "a: 1\n---\nb: 2\n",
    "has an alias of itself": "model: &a [*a]\n",
    "has aliases for a billion values": "a0: &a0 [x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)),
    "is nested too deep": "model: " + "[" * 5000 + "]" * 5000,
}


def tag(text: str, *, folder: Path) -> Outcome:
    """A config with a tagged value in a section of its own."""
    value = text.format(m=folder / MARKER)
    printed = train(folder, config_file(folder, text=f"mine: {value}\n"))
    no_advice(printed)
    return kept_out(folder, printed, "config.yaml", "line ")


def no_config(text: str, *, folder: Path) -> Outcome:
    """A file that is no config."""
    path = folder / "config.yaml"
    path.write_text(text)
    printed = train(folder, path)
    no_advice(printed)
    return kept_out(folder, printed, "config.yaml")


# Targets by what they are, with the arguments that would write the marker.
COMMAND = {"command": "touch {m}"}
CODE = {"source": "open('{m}', 'w')"}
TARGETS: dict[str, dict[str, Any]] = {
    "os.system": COMMAND,
    "posix.system": COMMAND,
    "subprocess.run": {"args": ["touch", "{m}"]},
    "builtins.eval": CODE,
    "builtins.exec": CODE,
    "builtins.open": {"file": "{m}", "mode": "w"},
    "builtins.__import__": {"name": "evil_module"},
    "importlib.import_module": {"name": "evil_module"},
    "runpy.run_path": {"path_name": "evil_module.py"},
    "functools.partial": {"func": "os.system"},
    "pickle.load": {"file": "x"},
    "torch.load": {"f": "evil.pth", "weights_only": False},
    "torch.hub.load": {"repo_or_dir": ".", "model": "x", "source": "local"},
    "torch.utils.cpp_extension.load": {"name": "x", "sources": ["x.cpp"]},
    "torch.optim.sgd.torch.load": {"f": "evil.pth", "weights_only": False},
    "torch.optim.SGD.__init__.__globals__": {},
    "detectron2.config.LazyConfig.load": {"filename": "evil_module.py"},
    "detectron2.utils.env.os.system": COMMAND,
    "evil_module.run": {},
    "evil_module": {},
    "lad.engine.run.os.system": COMMAND,
    "lad.engine.run.main": {"argv": ["--config-file", "evil_module.py"]},
    "lad.engine.run.start_training": {"arguments": ["--trust"], "log": "{m}"},
    "lad.engine.config.load_config": {"path": "evil_module.py"},
    "lad.engine.config.LazyConfig.load": {"filename": "evil_module.py"},
    "lad.engine.targets.register_target": {"target": "os.system"},
    "lad.predict.Predictor": {"config": "evil_module.py", "weights": "x"},
    "lad.predict.Predictor.open": {"run_or_config": "evil_module.py"},
    "lad.checkpoint.read_weights": {"path": "evil.pkl", "trusted": True},
    "lad.checkpoint.read.pickle.load": {"file": "x"},
    "lad.cli.convert_checkpoint.main": {"argv": ["evil.pkl", "x", "--unsafe"]},
    "lad.modeling.one_stage.torch.load": {"f": "evil.pth", "weights_only": False},
    "lad.modeling.evil_module.Run": {},
    "lad.modeling..os.system": COMMAND,
    "lad.ops.boxes.pairwise_iou.__globals__": {},
    " os.system": COMMAND,
    "os .system": COMMAND,
    "os:system": COMMAND,
    "ｏｓ.system": COMMAND,  # full-width letters, which Python's identifiers fold
}


def marked(value: Any, marker: Path) -> Any:
    """Puts the marker's path into a value."""
    if isinstance(value, dict):
        return {name: marked(child, marker) for name, child in value.items()}
    if isinstance(value, list):
        return [marked(child, marker) for child in value]
    return value.replace("{m}", str(marker)) if isinstance(value, str) else value


@contextlib.contextmanager
def evil_files(folder: Path) -> Iterator[None]:
    """A module that can be imported, and checkpoints, which write the marker; the working folder.

    Raises:
        AssertionError: if the module has been imported.
    """
    (folder / "evil_module.py").write_text(f"open({str(folder / MARKER)!r}, 'w').close()\n")
    (folder / "hubconf.py").write_text((folder / "evil_module.py").read_text())
    torch.save({"a": Payload(folder)}, folder / "evil.pth")
    (folder / "evil.pkl").write_bytes(pickle.dumps({"a": Payload(folder)}))
    before = os.getcwd()
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        imported = sys.modules.pop("evil_module", None)
    assert imported is None, "the module has been imported"


def target(name: str, options: dict[str, Any], *, folder: Path) -> Outcome:
    """A config whose model is something else."""
    with evil_files(folder):
        node = {"_target_": name, **marked(options, folder / MARKER)}
        printed = train(folder, config_file(folder, {"model": node}))
        return kept_out(folder, printed, "config.yaml", "model._target_=")


EVIL = {"_target_": "os.system", "command": "touch {m}"}
# Sections in which a target hides, and the key that the error has to name.
HIDDEN: dict[str, tuple[dict[str, Any], str]] = {
    "in an argument": ({"model": {"_target_": "toy_training.ToyModel", "x": EVIL}}, "model.x._t"),
    "in a list": ({"mine": [1, [EVIL]]}, "mine.1.0._target_"),
    "in a section that nothing builds": ({"mine": {"a": EVIL}}, "mine.a._target_"),
    "as the target of a target": ({"mine": {"_target_": EVIL}}, "mine._target_"),
    "as a list of names": ({"mine": {"_target_": ["os.system"]}}, "mine._target_"),
    "as null": ({"mine": {"_target_": None}}, "mine._target_"),
    "as a number": ({"mine": {"_target_": 3}}, "mine._target_"),
    "as a reference": ({"mine": {"a": "os.system", "_target_": "${.a}"}}, "mine._target_"),
    "in a resolver": ({"model": "${oc.create:{_target_: os.system}}"}, "model="),
    "in a decoded text": ({"model": "${oc.decode:'{_target_: os.system}'}"}, "model="),
    "in a composed resolver": ({"mine": {"a": "decode", "b": "${oc.${.a}:x}"}}, "mine.b="),
    "in a reference inside a text": ({"mine": "a ${oc.env:HOME} b"}, "mine="),
}


def hidden(changes: dict[str, Any], words: str, *, folder: Path) -> Outcome:
    """A config with a target where it is harder to find."""
    printed = train(folder, config_file(folder, marked(changes, folder / MARKER)))
    return kept_out(folder, printed, "config.yaml", words)


# Overrides of a Python config that name code.
OVERRIDES = {
    "model._target_=os.system": "model._target_=os.system",
    "model._target_='os.system'": "model._target_=os.system",
    "++model._target_=os.system": "model._target_",
    "+mine._target_=os.system": "mine",
    "model[_target_]=os.system": "model[_target_]",
    "model@_target_=os.system": "model",
    "model={_target_:os.system,command:'touch {m}'}": "model._target_=os.system",
    "model={_target_:evil_module.run}": "model._target_=evil_module.run",
    "model._target_=lad.engine.run.os.system": "model._target_=lad.engine.run.os.system",
    "model._target_=builtins.eval": "model._target_=builtins.eval",
    "model._target_=torch.hub.load": "model._target_=torch.hub.load",
    "model._target_=lad.predict.Predictor.open": "model._target_=lad.predict.Predictor.open",
    "model._target_={_target_:os.system}": "model._target_",
    "model._target_=${{train.output_dir}}": "model._target_=${train.output_dir}",
    "train.hooks=[{{_target_:os.system,command:'touch {m}'}}]": "train.hooks.0._target_=os.system",
    "train.writers=[{{_target_:evil_module.run}}]": "train.writers.0._target_=evil_module.run",
    "dataloader.train.mapper={{_target_:os.system}}": "dataloader.train.mapper",
    "train.hooks=[[{{_target_:os.system}}]]": "train.hooks.0.0._target_",
    "train.output_dir='${{oc.env:HOME}}'": "train.output_dir=${oc.env:HOME}",
    "train.hooks='${{oc.decode:x}}'": "train.hooks=${oc.decode:x}",
}


def override(text: str, words: str, *, folder: Path) -> Outcome:
    """An override that names code; the value that follows is never built."""
    with evil_files(folder):
        text = text.replace("{{", "{").replace("}}", "}").replace("{m}", str(folder / MARKER))
        printed = call(run.main, ["--config-file", TOY, f"train.output_dir={folder}/run", text])
        return kept_out(folder, printed, words)


def two_overrides(folder: Path) -> Outcome:
    """The second override asks for the parameters of the first one's target."""
    with evil_files(folder):
        first = "model._target_=evil_module.run"
        printed = train(folder, TOY, first, "model.anything=1")
        return kept_out(folder, printed, "model._target_=evil_module.run")


def picture(folder: Path) -> Path:
    """Writes a small picture."""
    path = folder / "picture.png"
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(path)
    return path


# The commands that read a run's config.yaml, with {f} for the folder, {r} for the run in it.
READERS: dict[str, tuple[Main, list[str]]] = {
    "lad predict": (predict.main, ["{r}", "{f}/picture.png", "--json", "{f}/x.json"]),
    "lad predict of a .yaml": (
        predict.main,
        ["{r}/config.yaml", "{f}/picture.png", "--weights", "{r}/model_final.pth"]
        + ["--json", "{f}/x.json"],
    ),
    "lad export": (export_model.main, ["{r}", "--output", "{f}/x.onnx"]),
    "lad inspect": (inspect_assignment.main, ["--config-file", "{r}", "--out", "{f}/x.html"]),
    "lad check-dataset": (check_dataset.main, ["{f}", "--config-file", "{r}/config.yaml"]),
    "an evaluation": (
        run.main,
        ["--config-file", "{r}/config.yaml", "--eval-only", "--resume"],
    ),
    "a resumed training": (run.main, ["--config-file", "{r}/config.yaml", "--resume"]),
    "a dry run": (run.main, ["--config-file", "{r}/config.yaml", "--dry-run"]),
    "a training with --data": (
        run.main,
        ["--config-file", "{r}/config.yaml", "--data", "{f}"],
    ),
}


def reader(main: Main, arguments: list[str], *, folder: Path, evil: str) -> Outcome:
    """A command on a run whose config.yaml is evil."""
    picture(folder)
    made = folder / "a_run"
    if evil == "tag":
        value = f"!!python/object/apply:os.system ['touch {folder / MARKER}']"
        config_file(made, text=f"mine: {value}\n")
    else:
        config_file(made, marked({"model": EVIL}, folder / MARKER))
    torch.save({"model": {"a": torch.zeros(1)}}, made / "model_final.pth")
    before = sorted(folder.rglob("*"))
    printed = call(main, [text.format(f=folder, r=made) for text in arguments])
    assert sorted(folder.rglob("*")) == before, "a refused command has written something"
    words = ("config.yaml", "!!python" if evil == "tag" else "model._target_=os.system")
    return kept_out(folder, printed, *words)


class Payload:
    """Writes the marker when it is unpickled."""

    def __init__(self, folder: Path):
        self.command = f"touch {folder / MARKER}"

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def old_format(content: Any, path: Path) -> None:
    """Writes PyTorch's format before version 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


# How evil checkpoints are written: by the file's name, of the content.
WRITERS: dict[str, tuple[str, Callable[[Any, Path], None]]] = {
    "torch.save": ("x.pth", torch.save),
    "torch.save of old": ("x.pth", old_format),
    "pickle, protocol 0": ("x.pth", lambda x, p: p.write_bytes(pickle.dumps(x, 0))),
    "pickle, protocol 2": ("x.pth", lambda x, p: p.write_bytes(pickle.dumps(x, 2))),
    "pickle, protocol 5": ("x.pth", lambda x, p: p.write_bytes(pickle.dumps(x, 5))),
    "pickle named .pkl": ("x.pkl", lambda x, p: p.write_bytes(pickle.dumps(x, 2))),
    "torch.save named .pkl": ("x.pkl", torch.save),
    "NumPy's .npz": (
        "x.npz",
        lambda x, p: np.savez(p, a=np.array([x], dtype=object)),
    ),
}
# The commands that read a checkpoint {c}, with {f} for the folder.
LOADERS: dict[str, tuple[Main, list[str]]] = {
    "convert-checkpoint": (convert_checkpoint.main, ["{c}", "{f}/out.pth"]),
    "export-network": (export_network.main, ["{c}", "{f}/out.pth"]),
    "training": (
        run.main,
        ["--config-file", str(TOY), "train.output_dir={f}/run", "train.init_checkpoint={c}"],
    ),
    "evaluation": (
        run.main,
        ["--config-file", str(TOY), "train.output_dir={f}/run", "train.init_checkpoint={c}"]
        + ["--eval-only"],
    ),
    "predict": (
        predict.main,
        ["quick/paa.py", "{f}/picture.png", "--weights", "{c}", "--json", "{f}/x.json"],
    ),
    "export": (
        export_model.main,
        ["quick/paa.py", "--weights", "{c}", "--output", "{f}/x.onnx"],
    ),
}


def checkpoint(loader: str, writer: str, *, folder: Path) -> Outcome:
    """A command on a checkpoint that runs code when it is unpickled."""
    main, arguments = LOADERS[loader]
    name, write = WRITERS[writer]
    picture(folder)
    write({"model": {"a": torch.zeros(1)}, "meta": Payload(folder)}, folder / name)
    printed = call(main, [text.format(f=folder, c=folder / name) for text in arguments])
    no_advice(printed)
    assert not (folder / MARKER).exists(), "the payload has run"
    assert not list(folder.glob("out*")), "a refused command has written its output"
    return refused(printed, name)


def resumed(name: str, *, folder: Path) -> Outcome:
    """--resume of a run whose newest checkpoint is evil."""
    made = folder / "run"
    made.mkdir()
    torch.save({"model": {}, "trainer": {}, "x": Payload(folder)}, made / name)
    (made / "last_checkpoint").write_text(name)
    arguments = ["--config-file", TOY, f"train.output_dir={made}", "--resume"]
    printed = call(run.main, arguments)
    no_advice(printed)
    assert not (folder / MARKER).exists(), "the payload has run"
    return refused(printed, name)


def exported(name: str, *, folder: Path) -> Outcome:
    """A pickle, named like an exported file."""
    picture(folder)
    torch.save(Payload(folder), folder / name)
    arguments = [folder / name, folder / "picture.png", "--json", folder / "x.json"]
    printed = call(predict.main, arguments)
    no_advice(printed)
    assert not (folder / MARKER).exists(), "the payload has run"
    return refused(printed, name)


OWN = """
import own_parts
from detectron2.config import LazyCall as L
from lad import get_config

dataloader, lr_multiplier, optimizer, train = get_config(
    "quick/paa.py", "dataloader", "lr_multiplier", "optimizer", "train"
)
model = L(own_parts.Own)(channels=5)
"""


def own_config(folder: Path) -> Outcome:
    """The config.yaml of a Python config with a class of one's own: refused, then trusted."""
    (folder / "own.py").write_text(OWN)
    (folder / "own_parts.py").write_text(
        "from torch import nn\n\nclass Own(nn.Linear):\n"
        "    def __init__(self, *, channels):\n        super().__init__(channels, 2)\n"
    )
    sys.path.insert(0, str(folder))
    try:
        config = load_config(str(folder / "own.py"), ["model.channels=6"])  # it is code
        LazyConfig.save(config, str(folder / "config.yaml"))
        refusal = refused(
            train(folder, folder / "config.yaml"),
            *("model._target_=own_parts.Own", "if it is your own", "--trust", "register_target"),
        )
        assert refusal is Outcome.ONE_LINE
        model = build(load_config(str(folder / "config.yaml"), trusted=True), "model")
        assert model.weight.shape == (2, 6)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("own_parts", None)
    return Outcome.CORRECT


def saved_config(folder: Path) -> Outcome:
    """A run's own config.yaml trains to the same weights as its Python config."""
    weights = []
    for name, source in (("a", TOY), ("b", config_file(folder))):
        out = folder / name
        printed = train(out, source, "train.device=cpu")
        assert printed.status == 0, printed.text[-1000:]
        weights.append(torch.load(out / "run/model_final.pth", weights_only=True)["model"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    return Outcome.CORRECT


def trusted_file(folder: Path) -> Outcome:
    """With --trust a config may do what it wants: the flag is no decoration."""
    value = f"!!python/object/apply:os.system ['touch {folder / MARKER}']"
    path = config_file(folder, text=f"mine: {value}\n")
    load_config(str(path), trusted=True)
    assert (folder / MARKER).exists()
    return Outcome.CORRECT


def allowed_names(folder: Path) -> Outcome:
    """Names by the rule, worked out by hand."""
    allowed = ("lad.modeling.heads.PAAHead", "lad.assignment.indicators.Fisher", "torch.optim.SGD")
    refusals = ("lad.modeling.heads", "lad.modeling.heads.torch", "lad.modeling.heads.nn.Module")
    assert all(map(is_allowed, allowed))
    assert not any(map(is_allowed, (*refusals, "", ".", "lad", "torch.optim", "lad.modeling.")))
    return Outcome.CORRECT


def _case(name: str, function: Callable[..., Outcome], *values: Any, **options: Any) -> Case:
    return Case("code", name, lambda folder: function(*values, folder=folder, **options))


CASES = [
    *(_case(f"config {name}", tag, text) for name, text in TAGS.items()),
    *(_case(f"config {name}", no_config, text) for name, text in TEXTS.items()),
    *(_case(f"config names {name!r}", target, name, options) for name, options in TARGETS.items()),
    *(_case(f"config hides a target {name}", hidden, *what) for name, what in HIDDEN.items()),
    *(_case(f"override {text}", override, text, words) for text, words in OVERRIDES.items()),
    Case("code", "two overrides, the second about the first's target", two_overrides),
    *(
        _case(f"{name} with an evil {evil} in config.yaml", reader, *what, evil=evil)
        for name, what in READERS.items()
        for evil in ("tag", "target")
    ),
    *(
        _case(f"{loader} reads {writer}", checkpoint, loader, writer)
        for loader in LOADERS
        for writer in WRITERS
        if loader == "convert-checkpoint" or writer in ("torch.save", "pickle named .pkl")
    ),
    *(_case(f"resume from {n}", resumed, n) for n in ("model_latest.pth", "model_0000001.pkl")),
    *(_case(f"predict with a pickle named {n}", exported, n) for n in ("x.onnx", "x.pt2")),
    Case("code", "config.yaml of a class of one's own", own_config),
    Case("code", "config.yaml of a run", saved_config),
    Case("code", "config.yaml that is trusted", trusted_file),
    Case("code", "names of targets", allowed_names),
]
