"""Faults of data, configs, checkpoints and processes, and what a run makes of them."""
