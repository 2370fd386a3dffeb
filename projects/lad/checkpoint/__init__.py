"""Reading of checkpoints: ours, Detectron2's, torchvision's and MMDetection's."""

from lad.checkpoint.export import export_network
from lad.checkpoint.load import (
    LoadReport,
    load_initial_weights,
    load_state,
    load_weights,
)
from lad.checkpoint.read import read_weights

__all__ = [
    "LoadReport",
    "export_network",
    "load_initial_weights",
    "load_state",
    "load_weights",
    "read_weights",
]
