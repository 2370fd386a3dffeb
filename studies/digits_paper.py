"""The LAD paper's tables in miniature: its rows with the small detectors on digit scenes.

"R18", "R50" and "R101" of the paper are networks of width 16, 32 and 48 here; "pre-trained on COCO"
is trained alone on the same scenes. All trainings are equally long.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.common import SMALL, TINY, WIDE, digits, width
from studies.runner import results
from studies.runner.definition import Method, Study
from studies.runner.tables import markdown, mean_gain, pairs, spread

COP = "{_target_:lad.modeling.heads.ConditionalObjectness,channels:32,kernel_size:3}"
IOP = "{_target_:lad.modeling.heads.ImplicitObjectness,channels:32}"


def pair(
    name: str, config: str, student: int, second: int, *, teacher: str = "", baseline: str
) -> Method:
    """A method on two networks of these widths; a teacher is trained before."""
    overrides = width(student, "model.student"), width(second, "model.teacher")
    return digits(name, *overrides, config=config, teacher=teacher, baseline=baseline)


def soft_label(name: str, override: str) -> Method:
    """Soft labels alone: small from wide."""
    override = f"model.distill_losses.0.{override}"
    return digits(name, override, config="soft_label_kl", teacher="paa_wide", baseline="paa")


def head(name: str, *overrides: str) -> Method:
    """PAA whose head predicts something else."""
    overrides = tuple(f"model.head.{x}" for x in overrides)
    return digits(name, *overrides, config="paa", baseline="paa")


WIDE_FROM_SMALL: dict[str, Any] = {
    "student": WIDE,
    "second": SMALL,
    "teacher": "paa",
    "baseline": "paa_wide",
}

study = Study(
    name="digits_paper",
    question="faster",
    overrides=("train.max_iter=700",),
    evaluations=1,
    methods=(
        # Alone: what the others are compared with, and teachers.
        digits("paa_wide", width(WIDE), config="paa"),
        digits("paa"),
        digits("paa_tiny", width(TINY), config="paa"),
        # Table 2: small from wide.
        *(soft_label(f"kl_gamma{gamma:g}", f"gamma={gamma}") for gamma in (0.0, 0.5, 2.0)),
        *(soft_label(kind, f"kind={kind}") for kind in ("l1", "l2")),
        digits("lad", teacher="paa_wide", baseline="paa"),
        digits("solad", teacher="paa_wide", baseline="paa"),
        # Table 3: wide from small.
        pair("kl_wide_from_small", "soft_label_kl", **WIDE_FROM_SMALL),
        pair("lad_wide_from_small", "lad", **WIDE_FROM_SMALL),
        # Tables 4 and 5: CoLAD; the second network is the wide one, but in "wide_from_small".
        *(
            pair(f"{config}_wide_from_small", config, **WIDE_FROM_SMALL)
            for config in ("colad_stdmean", "colad_fisher")
        ),
        digits("colad", config="colad_stdmean", baseline="paa"),
        digits("colad_from_wide", config="colad_stdmean", teacher="paa_wide", baseline="paa"),
        # The ablation that the paper leaves open.
        *(
            digits(
                f"colad_{scope}",
                f"model.switch.scope={scope}",
                config="colad_stdmean",
                baseline="paa",
            )
            for scope in ("image", "object", "level")
        ),
        # Table 6: tiny students.
        pair("lad_tiny_from_small", "lad", TINY, SMALL, teacher="paa", baseline="paa_tiny"),
        pair("colad_tiny_small", "colad_stdmean", TINY, SMALL, baseline="paa_tiny"),
        pair("lad_tiny_from_wide", "lad", TINY, WIDE, teacher="paa_wide", baseline="paa_tiny"),
        pair("colad_tiny_wide", "colad_stdmean", TINY, WIDE, baseline="paa_tiny"),
        # Table 8: a frozen teacher that is no stronger than the student becomes.
        pair("lad_from_small", "lad", SMALL, SMALL, teacher="paa", baseline="paa"),
        pair(
            "switch_from_small",
            "lad_switch",
            SMALL,
            SMALL,
            teacher="paa",
            baseline="lad_from_small",
        ),
        # Appendix, table 1: what the head predicts besides class and box.
        head("iou_iop", f"objectness={IOP}"),
        head("iou_cop", f"objectness={COP}"),
        head("iop", f"objectness={IOP}", "quality=false"),
        head("cop", f"objectness={COP}", "quality=false"),
    ),
)


@dataclass(frozen=True)
class Row:
    """A row of a table of the paper.

    Attributes:
        method: of the study.
        config: on COCO, relative to configs/.
        paper: the paper's AP.
        second: the paper's AP of the second network; None without one.
    """

    method: str
    config: str
    paper: float
    second: float | None = None


TABLES: dict[str, tuple[Row, ...]] = {
    "table2": (
        Row("paa", "paa/r50_1x.py", 40.4),
        Row("kl_gamma0", "soft_label/kl_gamma0_r50_from_r101_1x.py", 39.8),
        Row("kl_gamma0.5", "soft_label/kl_gamma05_r50_from_r101_1x.py", 41.3),
        Row("kl_gamma2", "soft_label/kl_gamma2_r50_from_r101_1x.py", 39.6),
        Row("l1", "soft_label/l1_r50_from_r101_1x.py", 40.4),
        Row("l2", "soft_label/l2_r50_from_r101_1x.py", 41.0),
        Row("lad", "lad/r50_from_r101_1x.py", 41.6),
        Row("solad", "solad/r50_from_r101_1x.py", 42.4),
    ),
    "table3": (
        Row("paa_wide", "paa/r101_1x.py", 42.6),
        Row("kl_wide_from_small", "soft_label/kl_gamma05_r101_from_r50_1x.py", 40.4),
        Row("lad_wide_from_small", "lad/r101_from_r50_1x.py", 43.3),
    ),
    "table4": (
        Row("paa_wide", "paa/r101_1x.py", 42.6),
        Row("lad_wide_from_small", "lad/r101_from_r50_1x.py", 43.3),
        Row("colad_stdmean_wide_from_small", "colad/r101_from_r50_1x_stdmean.py", 43.3),
        Row("colad_fisher_wide_from_small", "colad/r101_from_r50_1x_fisher.py", 43.4),
    ),
    "table5": (
        Row("colad", "colad/r50_r101_1x_stdmean.py", 41.3, 43.1),
        Row("colad_from_wide", "colad/r50_from_r101_1x_stdmean.py", 41.6, 44.1),
        Row("colad_stdmean_wide_from_small", "colad/r101_from_r50_1x_stdmean.py", 43.3, 42.6),
    ),
    "table6": (
        Row("paa_tiny", "paa/r18_1x.py", 35.8),
        Row("lad_tiny_from_small", "lad/r18_from_r50_1x.py", 36.9),
        Row("colad_tiny_small", "colad/r18_r50_1x_stdmean.py", 36.5),
        Row("lad_tiny_from_wide", "lad/r18_from_r101_1x.py", 36.8),
        Row("colad_tiny_wide", "colad/r18_r101_1x_stdmean.py", 36.6),
    ),
    "table8": (Row("switch_from_small", "lad/switch_swin_b_from_cop_x101_dcn_3x_ms.py", 51.4),),
    "appendix": (
        Row("paa", "paa/r50_1x.py", 40.4),
        Row("iou_iop", "cop/iop_r50_1x.py", 41.6),
        Row("iou_cop", "cop/cop_r50_1x.py", 41.6),
        Row("iop", "cop/iop_no_iou_r50_1x.py", 41.1),
        Row("cop", "cop/cop_no_iou_r50_1x.py", 41.2),
    ),
}


def paper_table(rows: tuple[Row, ...], folder: Path) -> str:
    """Returns the paper's AP on COCO beside ours on digit scenes, with gains over the baseline."""
    lines = []
    for row in rows:
        method = study.method(row.method)
        runs = results.read_all(folder, method.name)
        networks = [run["networks"] for run in runs.values()]
        lines.append(
            [
                method.name,
                paper_ap(row),
                spread([results.precision(x["student"]) for x in networks]),
                spread([results.precision(x["teacher"]) for x in networks if "teacher" in x]),
                mean_gain(pairs(folder, method)),
                str(len(runs)),
            ]
        )
    header = ["method", "AP, paper (COCO)", "AP here (digits)", "second network", "gain", "seeds"]
    return markdown(header, lines)


def paper_ap(row: Row) -> str:
    """Returns the paper's AP of one or two networks."""
    return f"{row.paper:.1f}" if row.second is None else f"{row.paper:.1f}, {row.second:.1f}"
