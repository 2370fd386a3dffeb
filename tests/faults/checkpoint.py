"""Faults of checkpoints: damaged, cut off, empty, of other models, and ones that would run code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from faults import toy
from faults.case import Case, Lost, Outcome, Printed, refused
from lad.checkpoint import export_network, load_weights
from lad.checkpoint.folder import find_training
from lad.engine.nonfinite import read_step
from toy_training import ToyModel


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def marker(path: Path) -> Path:
    """Returns the file that `Evil` makes."""
    return path.with_name("evil_has_run")


def cut(share: float) -> Callable[[Path], None]:
    """Returns a damage: keep only the first part of a file."""
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def flip(part: bytes, offset: int) -> Callable[[Path], None]:
    """Returns a damage: one bit flips so many bytes behind the n-th place of a text."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[data.index(part) + offset] ^= 16
        path.write_bytes(bytes(data))

    return damage


def flip_weights(path: Path) -> None:
    """A bit of a weight flips: PyTorch itself loads that without a word."""
    content = torch.load(path, weights_only=True)
    weight = content["model"]["hidden.weight"].numpy().tobytes()
    flip(weight[:12], 6)(path)


def zeros(path: Path) -> None:
    """A disk has lost the second half: it reads as zeros."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Returns a damage: the content is another one."""

    def damage(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        content = change(content) or content
        torch.save(content, path)

    return damage


def evil(path: Path) -> None:
    """A file of torch.save that would run code."""
    torch.save({"model": {"weight": Evil(marker(path))}, "trainer": {"iteration": 3}}, path)


def evil_pickle(path: Path) -> None:
    """A plain pickle that would run code."""
    path.write_bytes(pickle.dumps({"model": Evil(marker(path))}))


FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"P"),
    "cut off at 10 %": cut(0.1),
    "cut off at half": cut(0.5),
    "cut off at 99 %": cut(0.99),
    "second half zeros": zeros,
    "a bit of a weight flipped": flip_weights,
    "a bit of the directory flipped": flip(b"PK\x01\x02", 16),
    "text": lambda path: path.write_text("<html>404 not found</html>"),
    "random bytes": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "would run code": evil,
    "pickle that would run code": evil_pickle,
}
CONTENTS: dict[str, Callable[[Path], object]] = {
    "a list": changed(lambda _: [1, 2]),
    "weights only": changed(lambda x: x.pop("trainer") and None),
    "no weights": changed(lambda x: x.pop("model") and None),
    "weights are numbers": changed(lambda x: x.update(model={"weight": 1.0})),
    "no iteration": changed(lambda x: x["trainer"].pop("iteration") and None),
    "iteration is negative": changed(lambda x: x["trainer"].update(iteration=-5)),
    "iteration is text": changed(lambda x: x["trainer"].update(iteration="many")),
}


def check_no_code(folder: Path) -> None:
    """Checks that no file has run code."""
    assert not list(folder.rglob("evil_has_run")), "the file has run code"


def newest(folder: Path, damage: Callable[[Path], object]) -> Outcome:
    """The newest checkpoint is damaged: the one before it is used, and a warning names both."""
    run = toy.stopped(folder)
    damage(run / "model_0000003.pth")
    found = find_training(str(run))
    assert found.path == str(run / "model_0000001.pth"), found
    (warning,) = found.warnings
    assert "model_0000003.pth" in warning and "model_0000001.pth" in warning, warning
    check_no_code(folder)
    return Outcome.CORRECT


def resumed(folder: Path, damage: Callable[[Path], object]) -> Outcome:
    """The same, trained to the end: it comes out as the whole run."""
    newest(folder, damage)
    printed = toy.run(folder / "run", "--resume")
    if printed.status:
        raise Lost(printed.text[-2000:])
    assert "WARNING: --resume: " in printed.text
    toy.check_whole(folder / "run")
    return Outcome.CORRECT


def only(folder: Path, damage: Callable[[Path], object]) -> Outcome:
    """The only checkpoint is damaged: the start is refused and changes nothing."""
    run = toy.stopped(folder)
    (run / "model_0000001.pth").unlink()
    damage(run / "model_0000003.pth")
    return unchanged(run, toy.run, "model_0000003.pth", "--resume")


def unchanged(run: Path, start: Callable[..., Printed], word: str, *arguments: str) -> Outcome:
    """Checks that a start is refused with one line, and leaves all files as they were."""
    before = {x: x.read_bytes() for x in run.rglob("*") if x.is_file()}
    outcome = refused(start(run, *arguments), word)
    after = {x: x.read_bytes() for x in run.rglob("*") if x.is_file()}
    names = sorted(str(x) for x in before.keys() ^ after.keys())
    assert not names, f"the refused start has added or removed {names}"
    others = [str(x) for x in before if before[x] != after[x]]
    assert not others, f"the refused start has changed {others}"
    check_no_code(run)
    return outcome


def pointer(folder: Path, content: bytes | None) -> Outcome:
    """``last_checkpoint`` is wrong: the newest whole checkpoint is used, and a line says so."""
    run = toy.stopped(folder)
    last = run / "last_checkpoint"
    last.unlink() if content is None else last.write_bytes(content)
    (folder / "outside.pth").write_bytes((run / "model_0000001.pth").read_bytes())
    found = find_training(str(run))
    assert found.path == str(run / "model_0000003.pth"), found
    assert len(found.warnings) == 1 and "model_0000003.pth" in found.warnings[0]
    return Outcome.CORRECT


POINTERS: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "white space": b" \n\n",
    "names a missing file": b"model_0000099.pth",
    "names a file outside": b"../outside.pth",
    "names a folder": b".",
    "binary": b"\xff\xfe\x00model",
    "names weights only": b"model_best.pth",
    "is a megabyte": b"x" * 2**20,
}


def other(folder: Path, word: str, *arguments: str) -> Outcome:
    """A resume with another model or optimizer is refused."""
    return unchanged(toy.stopped(folder), toy.run, word, "--resume", *arguments)


OTHERS: dict[str, tuple[str, ...]] = {
    "wider": ("is of another model", "model.channels=8"),
    "another optimizer": (
        "the optimizer in",
        "--trust",
        "optimizer._target_=torch.optim.RMSprop",
    ),
    "fewer iterations than done": ("set it to at least 4", "train.max_iter=2"),
}


def state(folder: Path, word: str, change: Callable[[Path], object]) -> Outcome:
    """The state of the newest checkpoint does not fit the run: the start is refused."""
    run = toy.stopped(folder)
    change(run / "model_0000003.pth")
    return unchanged(run, toy.run, word, "--resume")


def rename(content: dict[str, Any]) -> None:
    """Puts the weights into one of two networks."""
    content["model"] = {f"student.{k}": x for k, x in content["model"].items()}


STATES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no optimizer": ("no state", changed(lambda x: x["trainer"].pop("optimizer") and None)),
    "optimizer is empty": ("no state", changed(lambda x: x["trainer"].update(optimizer={}))),
    "optimizer of other parameters": (
        "parameters",
        changed(lambda x: x["trainer"]["optimizer"]["param_groups"][0]["params"].append(9)),
    ),
    "a weight is missing": ("lacks 1", changed(lambda x: x["model"].pop("hidden.bias") is None)),
    "a weight too many": ("has 1 weights", changed(lambda x: x["model"].update(w=torch.ones(1)))),
    "another shape": (
        "other shapes of 1",
        changed(lambda x: x["model"].update({"hidden.bias": torch.ones(7)})),
    ),
    "of two networks": ("lacks", changed(rename)),
}


def one_line(work: Callable[[], object], word: str, folder: Path) -> Outcome:
    """Checks that a function refuses a file in one line that names it."""
    try:
        work()
    except (ValueError, FileNotFoundError) as error:
        assert "\n" not in str(error) and word in str(error), str(error)
        check_no_code(folder)
        return Outcome.ONE_LINE
    raise AssertionError("accepted")


def initial(folder: Path, damage: Callable[[Path], object], ending: str = "pth") -> Outcome:
    """Initial weights are damaged."""
    path = folder / f"weights.{ending}"
    path.write_bytes((toy.whole() / "model_final.pth").read_bytes())
    damage(path)
    model = ToyModel()
    load = lambda: load_weights(model, str(path), source="train.init_checkpoint")  # noqa: E731
    return one_line(load, f"train.init_checkpoint={path}", folder)


def exported(folder: Path, damage: Callable[[Path], object]) -> Outcome:
    """The export of a network from a damaged file leaves no output."""
    path, output = folder / "pair.pth", folder / "student.pth"
    torch.save(
        {"model": {"student.weight": torch.ones(3, 40), "teacher.weight": torch.ones(3)}}, path
    )
    damage(path)
    outcome = one_line(lambda: export_network(str(path), "student", str(output)), "file", folder)
    assert not output.exists()
    return outcome


def replayed(folder: Path, damage: Callable[[Path], object]) -> Outcome:
    """The file of a step to replay is damaged."""
    path = folder / "nonfinite_0000003.pt"
    path.write_bytes((toy.whole() / "model_final.pth").read_bytes())
    damage(path)
    return one_line(lambda: read_step(str(path)), str(path), folder)


def cases(text: str, work: Callable, table: dict, *, quick: bool = True) -> list[Case]:
    """Returns a case for each row of a table."""

    def bound(value: Any) -> Callable[[Path], Outcome]:
        values = value if isinstance(value, tuple) else (value,)
        return lambda folder: work(folder, *values)

    return [Case("checkpoint", f"{text}: {k}", bound(x), quick) for k, x in table.items()]


some = ("cut off at half", "a bit of a weight flipped", "would run code")
CASES = [
    *cases("newest checkpoint", newest, {**FILES, **CONTENTS}),
    *cases("only checkpoint", only, {**FILES, **CONTENTS}),
    *cases("newest checkpoint, trained on", resumed, {k: FILES[k] for k in some}),
    *cases("last_checkpoint", pointer, POINTERS),
    *cases("resume with a model or optimizer", other, OTHERS),
    *cases("resume from a state", state, STATES),
    *cases("initial weights", initial, FILES),
    *cases("export of a network", exported, {k: FILES[k] for k in FILES if "a weight" not in k}),
    *cases("replay", replayed, {**FILES, "a training's": lambda path: None}),
]
