"""Label assignment distillation (LAD, CoLAD, SoLAD) for dense detectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lad.predict import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    # Imported when it is used: it needs PyTorch and Detectron2.
    if name == "Predictor":
        from lad.predict import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
