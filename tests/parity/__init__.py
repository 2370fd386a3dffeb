"""Comparisons with the official implementation, one module per kind of fixture."""
