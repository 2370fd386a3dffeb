"""Label assignment distillation (LAD, CoLAD, SoLAD) for dense detectors."""

__version__ = "0.1.0"
