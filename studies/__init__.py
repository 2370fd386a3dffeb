"""Experiments that compare methods over seeds: one file each; tools/study.py runs them."""

from studies import digits_lgd, digits_losses, digits_short

STUDIES = {x.name: x for x in (digits_short.study, digits_lgd.study, digits_losses.study)}
