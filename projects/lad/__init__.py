"""Label assignment distillation (LAD, CoLAD, SoLAD) and label-guided self-distillation (LGD)."""

__version__ = "0.1.0"
