"""The LAD paper's tables in miniature: its rows with the small detectors on digit scenes.

"R18", "R50" and "R101" of the paper are networks of width 16, 32 and 48 here; "pre-trained on COCO"
is trained alone on the same scenes. Trainings are as long as the digit configs'.
"""

from __future__ import annotations

from dataclasses import dataclass

from studies.runner.definition import Method, Study

TINY, SMALL, WIDE = 16, 32, 48
SOFT = "model.distill_losses.0"
COP = "{_target_:lad.modeling.heads.ConditionalObjectness,channels:32,kernel_size:3}"
IOP = "{_target_:lad.modeling.heads.ImplicitObjectness,channels:32}"


def width(value: int, network: str = "model") -> str:
    """An override of a network's width."""
    return f"{network}.backbone.bottom_up.width={value}"


def widths(student: int, teacher: int) -> tuple[str, ...]:
    """Overrides of both networks' widths."""
    return width(student, "model.student"), width(teacher, "model.teacher")


study = Study(
    name="digits_paper",
    question="faster",
    evaluations=2,
    methods=(
        # Alone: what the others are compared with, and teachers.
        Method("paa_wide", "digits/paa.py", (width(WIDE),)),
        Method("paa", "digits/paa.py"),
        Method("paa_tiny", "digits/paa.py", (width(TINY),)),
        # Table 2: small from wide.
        *(
            Method(
                f"kl_gamma{gamma:g}",
                "digits/soft_label_kl.py",
                (f"{SOFT}.gamma={gamma}",),
                teacher="paa_wide",
                baseline="paa",
            )
            for gamma in (0.0, 0.5, 2.0)
        ),
        *(
            Method(
                kind,
                "digits/soft_label_kl.py",
                (f"{SOFT}.kind={kind}",),
                teacher="paa_wide",
                baseline="paa",
            )
            for kind in ("l1", "l2")
        ),
        Method("lad", "digits/lad.py", teacher="paa_wide", baseline="paa"),
        Method("solad", "digits/solad.py", teacher="paa_wide", baseline="paa"),
        # Table 3: wide from small.
        Method(
            "kl_wide_from_small",
            "digits/soft_label_kl.py",
            widths(WIDE, SMALL),
            teacher="paa",
            baseline="paa_wide",
        ),
        Method(
            "lad_wide_from_small",
            "digits/lad.py",
            widths(WIDE, SMALL),
            teacher="paa",
            baseline="paa_wide",
        ),
        # Tables 4 and 5: CoLAD; the second network is the wide one, but in "wide_from_small".
        *(
            Method(
                f"colad_{indicator}_wide_from_small",
                f"digits/colad_{indicator}.py",
                widths(WIDE, SMALL),
                teacher="paa",
                baseline="paa_wide",
            )
            for indicator in ("stdmean", "fisher")
        ),
        Method("colad", "digits/colad_stdmean.py", baseline="paa"),
        Method("colad_from_wide", "digits/colad_stdmean.py", teacher="paa_wide", baseline="paa"),
        # The ablation that the paper leaves open.
        *(
            Method(
                f"colad_{scope}",
                "digits/colad_stdmean.py",
                (f"model.switch.scope={scope}",),
                baseline="paa",
            )
            for scope in ("image", "object", "level")
        ),
        # Table 6: tiny students.
        Method(
            "lad_tiny_from_small",
            "digits/lad.py",
            widths(TINY, SMALL),
            teacher="paa",
            baseline="paa_tiny",
        ),
        Method(
            "colad_tiny_small",
            "digits/colad_stdmean.py",
            widths(TINY, SMALL),
            baseline="paa_tiny",
        ),
        Method(
            "lad_tiny_from_wide",
            "digits/lad.py",
            widths(TINY, WIDE),
            teacher="paa_wide",
            baseline="paa_tiny",
        ),
        Method(
            "colad_tiny_wide",
            "digits/colad_stdmean.py",
            widths(TINY, WIDE),
            baseline="paa_tiny",
        ),
        # Table 8: a frozen teacher that is no stronger than the student becomes.
        Method(
            "lad_from_small", "digits/lad.py", widths(SMALL, SMALL), teacher="paa", baseline="paa"
        ),
        Method(
            "switch_from_small",
            "digits/lad_switch.py",
            widths(SMALL, SMALL),
            teacher="paa",
            baseline="lad_from_small",
        ),
        # Appendix, table 1: what the head predicts besides class and box.
        Method("iou_iop", "digits/paa.py", (f"model.head.objectness={IOP}",), baseline="paa"),
        Method("iou_cop", "digits/paa.py", (f"model.head.objectness={COP}",), baseline="paa"),
        Method(
            "iop",
            "digits/paa.py",
            (f"model.head.objectness={IOP}", "model.head.quality=false"),
            baseline="paa",
        ),
        Method(
            "cop",
            "digits/paa.py",
            (f"model.head.objectness={COP}", "model.head.quality=false"),
            baseline="paa",
        ),
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
