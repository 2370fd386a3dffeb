"""Experiments that compare methods over seeds: one file each; tools/study.py runs them."""

from studies import (
    digits_colad,
    digits_demo,
    digits_detectron2,
    digits_lgd,
    digits_long,
    digits_losses,
    digits_paper,
    digits_short,
    pcb,
    pcb_detectron2,
    pcb_losses,
    pcb_resnet,
)

_ALL = (
    digits_demo,
    digits_colad,
    digits_short,
    digits_losses,
    digits_detectron2,
    digits_lgd,
    digits_paper,
    digits_long,
    pcb,
    pcb_losses,
    pcb_detectron2,
    pcb_resnet,
)
STUDIES = {x.study.name: x.study for x in _ALL}
