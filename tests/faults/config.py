"""Faults of configs and command lines."""

from __future__ import annotations

from pathlib import Path

from faults.case import Case, Outcome, call, refused
from lad.engine.run import main

TOY = Path(__file__).parents[1] / "engine/toy_config.py"


def override(value: str, *words: str, folder: Path) -> Outcome:
    """Starts the toy training with an override that is wrong."""
    output = folder / "run"
    arguments = ["--config-file", TOY, f"train.output_dir={output}", value]
    outcome = refused(call(main, arguments), *words)
    assert not output.exists(), "a refused start has left a folder"
    return outcome


def overrides() -> list[Case]:
    """Overrides that name no key, or give a key a value that it cannot have."""
    wrong = {
        "train.max_itre=3": ("max_itre",),
        "train.max_iter=many": ("max_iter",),
        "train.max_iter": ("train.max_iter",),
    }
    return [
        Case("config", f"override {value}", lambda f, v=value, w=words: override(v, *w, folder=f))
        for value, words in wrong.items()
    ]


def missing_config(folder: Path) -> Outcome:
    """Names a config file that does not exist."""
    return refused(call(main, ["--config-file", folder / "none.py"]), "none.py")


CASES = [*overrides(), Case("config", "config file does not exist", missing_config)]
