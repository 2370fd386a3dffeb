"""Backbones beyond those that Detectron2 builds by itself."""
