"""Label assignment distillation (LAD, CoLAD, SoLAD) for dense detectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lad.engine.config import get_config
    from lad.engine.targets import register_target
    from lad.predict import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "get_config", "register_target"]


def __getattr__(name: str) -> Any:
    # Imported when they are used: they need PyTorch and Detectron2.
    if name == "Predictor":
        from lad.predict import Predictor

        return Predictor
    if name == "get_config":
        from lad.engine.config import get_config

        return get_config
    if name == "register_target":
        from lad.engine.targets import register_target

        return register_target
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
