"""LGD: distillation from a teacher made of the student's features and the labels."""

from lad.modeling.distill_losses.lgd.loss import LGD
from lad.modeling.distill_losses.lgd.teacher import LabelGuidedTeacher

__all__ = ["LGD", "LabelGuidedTeacher"]
