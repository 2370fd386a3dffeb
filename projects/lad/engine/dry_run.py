"""The hook of --dry-run."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from detectron2.engine import HookBase

from lad.engine.stopping import StoppedEarly
from lad.engine.writers import memory

logger = logging.getLogger(__name__)

STEPS = 2  # the first is slower than all others


class DryRun(HookBase):
    """Ends a training after two steps, of which it times the second."""

    def before_step(self) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def after_step(self) -> None:
        """Tells memory and time.

        Raises:
            StoppedEarly: after the last step.
        """
        max_iter = self.trainer.max_iter
        steps = min(STEPS, max_iter)
        if self.trainer.iter + 1 < steps:
            return
        seconds = time.perf_counter() - self._start
        total = timedelta(seconds=round(seconds * max_iter))
        logger.info(
            f"Dry run: {steps} step(s) done. Memory {memory() / 2**30:.1f} GB; {seconds:.2g} s per "
            f"iteration, about {total} for {max_iter} iterations, evaluations not counted. "
            "No file is left."
        )
        raise StoppedEarly("dry run")
