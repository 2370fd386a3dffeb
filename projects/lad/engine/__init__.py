"""Training: trainer, hooks, configuration and evaluation of a run."""
