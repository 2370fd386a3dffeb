"""Interleaved timings, targets and the report of one run."""

from __future__ import annotations

import io
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch


def interleaved(
    variants: dict[Any, Callable[[], Any]],
    *,
    repeats: int,
    warmup: int = 1,
    turn: float = 0.0,
    device: str = "cpu",
) -> dict[Any, float]:
    """Times variants in turn, so that other load on the machine affects all alike.

    Args:
        variants: by name.
        repeats: timed turns of each.
        warmup: untimed turns of each.
        turn: seconds. A fast variant is called again until its turn has lasted so long, since a
            single call would find the caches filled by the slow ones.
        device: "cuda" waits for the GPU before the clock is read.

    Returns:
        The median of each in seconds.
    """
    seconds: dict[Any, list[float]] = {name: [] for name in variants}
    for number in range(warmup + repeats):
        for name, call in variants.items():
            calls = _timed_calls(call, turn, device)
            if number >= warmup:
                seconds[name] += calls
    return {name: statistics.median(values) for name, values in seconds.items()}


def _timed_calls(call: Callable[[], Any], turn: float, device: str) -> list[float]:
    seconds: list[float] = []
    while not seconds or sum(seconds) < turn:
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_memory(call: Callable[[], Any], *, device: str = "cpu") -> int:
    """Returns the peak bytes of tensors that a call allocates."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.profiler.profile(profile_memory=True) as profile:
            call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


class Report:
    """Figures and targets of one run, printed as they come."""

    def __init__(self, mode: str):
        self.mode = mode
        self.figures: dict[str, float] = {}
        self.targets: list[dict[str, Any]] = []

    def figure(self, name: str, value: float, unit: str) -> None:
        """Records a figure without a target."""
        self.figures[f"{name} [{unit}]"] = value
        print(f"{name}: {value:.4g} {unit}", flush=True)

    def at_least(self, name: str, measured: float, limit: float) -> None:
        """Records a target that is met at or above ``limit``."""
        self._target(name, measured, f">= {limit:g}", measured >= limit)

    def at_most(self, name: str, measured: float, limit: float) -> None:
        """Records a target that is met at or below ``limit``."""
        self._target(name, measured, f"<= {limit:g}", measured <= limit)

    def _target(self, name: str, measured: float, wanted: str, ok: bool) -> None:
        self.targets.append({"name": name, "measured": measured, "wanted": wanted, "ok": ok})

    def finish(self, path: Path | None) -> int:
        """Prints the targets, writes the figures to a json file; returns the exit status."""
        for target in self.targets:
            verdict = "ok" if target["ok"] else "short"
            print(
                f"target {target['name']}: measured {target['measured']:.4g}, "
                f"wanted {target['wanted']}, {verdict}"
            )
        if path is not None:
            content = {
                "mode": self.mode,
                "machine": platform.machine(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "figures": self.figures,
                "targets": self.targets,
            }
            path.write_text(json.dumps(content, indent=1) + "\n")
        return int(not all(target["ok"] for target in self.targets))


@contextmanager
def no_output() -> Iterator[None]:
    """Silences what libraries print."""
    with redirect_stdout(io.StringIO()):
        yield
