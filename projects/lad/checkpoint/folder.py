"""The checkpoints in the folder of a training."""

from __future__ import annotations

import os
from glob import escape, glob
from typing import Any, NamedTuple

from lad.checkpoint.read import read_training
from lad.checkpoint.write import damage

LAST = "last_checkpoint"


class Found(NamedTuple):
    """The checkpoint to resume from.

    Attributes:
        path: of the file; "" if the folder has none.
        warnings: why it is another than the one that was saved last.
        seed: of the training; None if it is not in the file.
    """

    path: str = ""
    warnings: tuple[str, ...] = ()
    seed: int | None = None


def find_training(folder: str) -> Found:
    """Returns the checkpoint that ``last_checkpoint`` names, or else the newest that is whole.

    ``model_best.pth``, which holds weights only, does not count.

    Raises:
        FileNotFoundError: if ``last_checkpoint`` names a missing file, and there is no other.
        ValueError: if there are checkpoints, but none is whole.
    """
    try:
        named = _named(folder)
        problem = "" if named else f"{folder} has checkpoints, but no {LAST}"
    except ValueError as error:
        named, problem = "", str(error)
    if named:
        path = os.path.join(folder, named)
        if not os.path.isfile(path):
            problem = f"{os.path.join(folder, LAST)} names {path}, which does not exist"
        else:
            try:
                return Found(path, seed=_seed(_checked(path)))
            except ValueError as error:
                problem = str(error)
    others = [x for x in glob(os.path.join(escape(folder), "model_*.pth")) if _may_resume(x, named)]
    best = _newest(others)
    if best is not None:
        path, content = best
        done = content["trainer"]["iteration"] + 1
        warning = (
            f"--resume: {problem}; the newest that is whole, {path}, is used: iteration {done}"
        )
        return Found(path, (warning,), _seed(content))
    if others:
        raise ValueError(
            f"--resume: {problem}, and none of the others can be read: start again in another "
            "train.output_dir"
        )
    if named:
        kind = ValueError if os.path.isfile(os.path.join(folder, named)) else FileNotFoundError
        raise kind(
            f"--resume: {problem}, and there is no other checkpoint: write the name of one there, "
            "or start again in another train.output_dir"
        )
    return Found()


def _named(folder: str) -> str:
    """Returns the name in ``last_checkpoint``, "" if there is no such file.

    Raises:
        ValueError: if it holds no name of a file in the folder.
    """
    path = os.path.join(folder, LAST)
    try:
        with open(path, "rb") as file:
            name = file.read(1000).decode("utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""
    if not name or os.path.basename(name) != name or not name.isprintable() or name in (".", ".."):
        raise ValueError(f"{path} names no file of its folder")
    return name


def _may_resume(path: str, named: str) -> bool:
    return os.path.basename(path) not in (named, "model_best.pth")


def _checked(path: str) -> Any:
    """Returns the content of a training's checkpoint that is whole, else raises ValueError."""
    content = read_training(path)
    if problem := damage(path):
        raise ValueError(f"{path} is damaged: {problem}")
    return content


def _newest(paths: list[str]) -> tuple[str, Any] | None:
    found = []
    for path in paths:
        try:
            content = read_training(path)
        except (ValueError, OSError):
            continue
        # Of the same iteration, model_final.pth before model_0000009.pth.
        rank = content["trainer"]["iteration"], path.endswith("model_final.pth")
        found.append((rank, path, content))
    for _, path, content in sorted(found, key=lambda x: x[:2], reverse=True):
        if not damage(path):
            return path, content
    return None


def _seed(content: Any) -> int | None:
    try:
        return int(content["trainer"]["hooks"]["IterationSeed"]["seed"])
    except (KeyError, TypeError, ValueError):
        return None
