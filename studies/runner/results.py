"""Figures of runs, one json each."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import detectron2
import torch

from lad import __version__
from lad.engine.report import collect_results
from lad.metrics import read_metrics, series


def path(folder: Path, method: str, seed: int) -> Path:
    """Returns the file of a run."""
    return folder / f"{method}_seed{seed}.json"


def read(file: Path) -> dict[str, Any]:
    """Reads a run."""
    return json.loads(file.read_text())


def read_all(folder: Path, method: str) -> dict[int, dict[str, Any]]:
    """Returns the stored runs of a method by seed."""
    files = {int(x.stem.rpartition("_seed")[2]): x for x in folder.glob(f"{method}_seed*.json")}
    return {seed: read(files[seed]) for seed in sorted(files)}


def cost_path(folder: Path) -> Path:
    """Returns the file of what a study's training steps cost."""
    return folder / "cost.json"


def precision(network: Mapping[str, Any], key: str = "AP") -> float:
    """Returns a network's last figure; 0 if it detected nothing, of which COCO has no AP."""
    return network[key] or 0.0


def find(root: Path, config_hash: str, seed: int) -> Path | None:
    """Returns a run of any study with this config and seed."""
    for file in sorted(root.glob(f"*/*_seed{seed}.json")):
        if read(file)["config_hash"] == config_hash:
            return file
    return None


def store(file: Path, content: dict[str, Any]) -> None:
    """Writes a run, aside first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(file)


def figures(folder: Path, seconds: int | None, device: str) -> dict[str, Any]:
    """Returns what a finished training has reached, and on what.

    Args:
        folder: of the training.
        seconds: that it took; None if it was interrupted.
        device: that it ran on, "cpu" or "cuda".
    """
    rows = read_metrics(folder / "metrics.json")
    reached = collect_results(str(folder))
    networks = {}
    for network, tasks in reached.figures.items():
        prefix = f"{network}/" if network else ""
        last, values = series(rows, f"{prefix}bbox/AP")
        iterations = [min(i + 1, reached.iterations) for i in last]
        best = max(range(len(values)), key=lambda i: (number(values[i]) or 0.0, -i))
        networks[network or "student"] = {
            **{key: number(tasks["bbox"].get(key)) for key in ("AP", "AP50", "AP75")},
            "best": {"AP": number(values[best]), "iteration": iterations[best]},
            "curve": {
                "iteration": iterations,
                "AP": [number(x) for x in values],
            },
            "classes": {
                name: number(x) for name, x in reached.classes[network].get("bbox", {}).items()
            },
        }
    share = series(rows, "switch/student_share")[1]
    return {
        "iterations": reached.iterations,
        "seconds": seconds,
        "networks": networks,
        "switch": {"student_share": number(share[-1])} if share else None,
        **machine(device),
    }


def machine(device: str) -> dict[str, Any]:
    """Returns what a run is made on: versions, processor and, on "cuda", the GPU."""
    return {
        "lad": __version__,
        "torch": torch.__version__,
        "detectron2": detectron2.__version__,
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "gpu": None if device == "cpu" else torch.cuda.get_device_name(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
    }


def number(value: float | None) -> float | None:
    """Returns a figure with four decimals; None for nan."""
    return None if value is None or math.isnan(value) else round(value, 4)


def cpu_model() -> str:
    """Returns the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
