"""What each distillation loss gains on each network, with own labels and on top of LAD: one table.

The gains are those of the studies `digits_losses`, `digits_lgd`, `digits_detectron2` and
`pcb_losses`, each over the same network with the same labels and without the loss.
"""

from __future__ import annotations

from pathlib import Path

from studies import digits_detectron2, digits_lgd, digits_losses, pcb_losses
from studies.runner.definition import Study
from studies.runner.tables import gains, markdown, mean_interval

LOSSES = {"pkd": "PKD", "bckd": "BCKD", "crosskd": "CrossKD", "pgd": "PGD", "lgd": "LGD"}
DIGITS = (digits_losses.study, digits_lgd.study)
BOARDS = (pcb_losses.study,)
DETECTRON2 = (digits_detectron2.study,)
# Data, network, labels, the studies that have it, and the name of the method without a loss.
ROWS: tuple[tuple[str, str, str, tuple[Study, ...], str], ...] = (
    ("digits", "PAA", "own", DIGITS, "paa"),
    ("digits", "PAA", "LAD", DIGITS, "lad"),
    ("boards", "PAA", "own", BOARDS, "paa"),
    ("boards", "PAA", "LAD", BOARDS, "lad"),
    ("digits", "RetinaNet", "own", DETECTRON2, "retinanet"),
    ("digits", "RetinaNet", "LAD", DETECTRON2, "retinanet_lad"),
    ("digits", "FCOS", "own", DETECTRON2, "fcos"),
    ("digits", "FCOS", "LAD", DETECTRON2, "fcos_lad"),
)


def matrix(root: Path) -> str:
    """Returns the table of the runs stored below a folder; a cell without runs is empty."""
    lines = []
    for data, network, labels, studies, base in ROWS:
        cells = [gain(root, studies, f"{base}_{loss}") for loss in LOSSES]
        lines.append([data, network, labels, *cells])
    return markdown(["data", "network", "labels", *LOSSES.values()], lines)


def gain(root: Path, studies: tuple[Study, ...], name: str) -> str:
    """Returns what a method gains in the first of the studies that has runs of it."""
    for study in studies:
        for method in study.methods:
            if method.name == name and (found := gains(root / study.name, method)):
                return mean_interval([*found.values()])
    return ""
