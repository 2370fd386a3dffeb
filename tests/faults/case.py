"""What a case of a fault is, and the commands that the cases run."""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

Run = Callable[[Path], "Outcome"]


class Outcome(Enum):
    """How a case ended; the values are the words of the summary."""

    ONE_LINE = "one line"  # refused with one clear line, before any work was lost
    CORRECT = "correct"  # handled, with the right numbers
    WRONG = "silently wrong"
    TRACEBACK = "traceback"
    LOST = "lost"  # a run was lost or blocked

    @property
    def good(self) -> bool:
        """Whether a user can live with it."""
        return self in (Outcome.ONE_LINE, Outcome.CORRECT)


class Lost(AssertionError):
    """A case raises this when a run is lost or cannot go on; any other AssertionError is wrong."""


class Case(NamedTuple):
    """A fault.

    Attributes:
        group: "data", "config", "checkpoint", "process" or "code".
        name: what is at fault, in words.
        run: gets an empty folder and returns how it ended.
        quick: whether it takes at most some seconds, so that `make test` runs it.
    """

    group: str
    name: str
    run: Run
    quick: bool = True

    def outcome(self, folder: Path) -> tuple[Outcome, str]:
        """Runs it; returns how it ended, and details of what is not good."""
        try:
            return self.run(folder), ""
        except Lost as error:
            return Outcome.LOST, str(error)
        except AssertionError as error:
            return Outcome.WRONG, str(error)
        except Exception:
            return Outcome.TRACEBACK, traceback.format_exc()


class Printed(NamedTuple):
    """What a command did.

    Attributes:
        status: its exit status.
        text: what it wrote to stdout and stderr.
    """

    status: int
    text: str


def call(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str | Path]) -> Printed:
    """Runs a command's main function in this process."""
    text = io.StringIO()
    status = 0
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            status = main([str(x) for x in arguments]) or 0
        except SystemExit as stop:
            if isinstance(stop.code, str):
                print(stop.code)
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Printed(status, text.getvalue())


def refused(printed: Printed, *words: str) -> Outcome:
    """Checks that a command ended with one line that holds these words.

    Raises:
        AssertionError: if it succeeded, printed a traceback, or its error lacks a word.
    """
    assert printed.status != 0, f"accepted: {printed.text[-2000:]}"
    if "Traceback (most recent call last)" in printed.text:
        return Outcome.TRACEBACK
    errors = [line for line in printed.text.splitlines() if "error" in line.lower()]
    assert len(errors) == 1, f"{len(errors)} error lines: {printed.text[-2000:]}"
    missing = [word for word in words if word not in errors[0]]
    assert not missing, f"the error does not name {missing}: {errors[0]}"
    return Outcome.ONE_LINE
