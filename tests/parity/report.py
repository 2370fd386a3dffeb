"""Collects what was compared."""

import numpy as np
import torch

TOLERANCE = 1e-4
LABEL_TOLERANCE = 1e-3
PIXEL_TOLERANCE = 0.01


class Report:
    """One line per quantity and the verdict over all of them."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.case = ""
        self.families: set[str] = set()
        self.cases: set[str] = set()
        self.quantities = 0
        self.worst = 0.0
        self.failures = 0
        self.candidates = 0
        self.differing = 0

    def begin(self, case: str, family: str) -> None:
        """Names the case that the next quantities belong to."""
        self.case, self._family = case, family

    def compare(self, name: str, ours, official) -> None:
        """Compares arrays by the largest difference relative to the largest official value."""
        a, b = _numpy(ours), _numpy(official)
        if a.shape != b.shape:
            self._line(name, np.inf, f"shape {a.shape}, official {b.shape}")
            return
        scale = max(np.abs(b).max(initial=0.0), 1e-6)
        difference = np.abs(a - b).max(initial=0.0) / scale
        self._line(name, float(difference))

    def equal(self, name: str, ours, official) -> None:
        """Compares integers or booleans exactly."""
        a, b = _numpy(ours), _numpy(official)
        same = a.shape == b.shape and bool((a == b).all())
        self._line(name, 0.0 if same else np.inf, "" if same else "not equal")

    def pixels(self, name: str, distance: float) -> None:
        """Records the largest distance of matched boxes in pixels; 0.01 px is the limit."""
        self._line(name, distance / PIXEL_TOLERANCE * TOLERANCE, f"{distance:.2g} px")

    def labels(self, differing: int, candidates: int) -> None:
        """Counts candidates whose labels differ from the official ones."""
        self.differing += differing
        self.candidates += candidates
        self._line("labels", 0.0, f"{differing} of {candidates} candidates differ")

    def _line(self, name: str, difference: float, note: str = "") -> None:
        difference = difference if np.isfinite(difference) else np.inf
        self.families.add(self._family)
        self.cases.add(self.case)
        self.quantities += 1
        self.worst = max(self.worst, difference)
        failed = difference > TOLERANCE
        self.failures += failed
        if failed or not self.quiet:
            print(
                f"{self.case:16} {name:40} R {difference:.1e}{' FAILED' * failed} {note}".rstrip()
            )

    def finish(self, required: set[str]) -> int:
        """Prints the verdict; returns the exit status."""
        missing = sorted(required - self.families)
        if missing:
            print(f"required but not compared: {', '.join(missing)}")
        too_many = self.differing > LABEL_TOLERANCE * self.candidates
        print(
            f"parity: {len(self.cases)} cases, {self.quantities} quantities, "
            f"worst {self.worst:.1e}, {self.differing} of {self.candidates} candidates with "
            "other labels"
        )
        return int(bool(self.failures or missing or too_many))


def _numpy(values) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().numpy()
    values = np.asarray(values)
    return values.astype(np.float64) if values.dtype.kind == "f" else values
