"""Detectors, heads, backbones and losses."""
