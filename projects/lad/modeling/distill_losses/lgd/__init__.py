"""LGD: distillation from a teacher made of the student's features and the labels."""

from lad.modeling.distill_losses.lgd.loss import LGD

__all__ = ["LGD"]
