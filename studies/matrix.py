"""What each distillation loss gains on each network, and LAD with and without it: one table.

The runs are those of the studies `digits_losses`, `digits_lgd`, `digits_detectron2`, `pcb_losses`
and `pcb_detectron2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from studies import digits_detectron2, digits_lgd, digits_losses, pcb_detectron2, pcb_losses
from studies.runner.definition import Study
from studies.runner.tables import markdown, mean_gain, pairs

LOSSES = {
    "pkd": "PKD",
    "bckd": "BCKD",
    "crosskd": "CrossKD",
    "pgd": "PGD",
    "lgd": "LGD",
    "ld": "LD",
}
DIGITS = (digits_losses.study, digits_lgd.study)
DETECTRON2 = (digits_detectron2.study,)
BOARDS = (pcb_losses.study,)
DETECTRON2_BOARDS = (pcb_detectron2.study,)
# Network and data, the studies that have it, and its methods without a loss: own labels, LAD.
NETWORKS: tuple[tuple[str, tuple[Study, ...], str, str], ...] = (
    ("PAA, digits", DIGITS, "paa", "lad"),
    ("PAA, boards", BOARDS, "paa", "lad"),
    ("GFL, digits", DIGITS, "gfl", "gfl_lad"),
    ("RetinaNet, digits", DETECTRON2, "retinanet", "retinanet_lad"),
    ("RetinaNet, boards", DETECTRON2_BOARDS, "retinanet", "retinanet_lad"),
    ("FCOS, digits", DETECTRON2, "fcos", "fcos_lad"),
    ("FCOS, boards", DETECTRON2_BOARDS, "fcos", "fcos_lad"),
)


def matrix(root: Path) -> str:
    """Returns the table of the runs stored below a folder; a cell without runs is empty."""
    lines = []
    for network, studies, own, lad in NETWORKS:
        alone = (gain(root, studies, f"{own}_{loss}", own) for loss in LOSSES)
        on_lad = (gain(root, studies, f"{lad}_{loss}", lad) for loss in LOSSES)
        of_lad = (gain(root, studies, f"{lad}_{loss}", f"{own}_{loss}") for loss in LOSSES)
        lines += [
            [network, "the loss", "", *alone],
            [network, "the loss, on top of LAD", "", *on_lad],
            [network, "LAD, on top of the loss", gain(root, studies, lad, own), *of_lad],
        ]
    return markdown(["network, data", "gain of", "no loss", *LOSSES.values()], lines)


def gain(root: Path, studies: Sequence[Study], name: str, baseline: str) -> str:
    """Returns what a method gains over another in the first study that has runs of both."""
    for study in studies:
        for method in study.methods:
            compared = replace(method, baseline=baseline)
            if method.name == name and (found := pairs(root / study.name, compared)):
                return mean_gain(found)
    return ""
