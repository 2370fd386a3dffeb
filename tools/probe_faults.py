"""Runs every fault of tests/faults and counts how they ended.

python tools/probe_faults.py [GROUP...] [--quick] [--only TEXT]
"""

import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"

if __name__ == "__main__":
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    os.execve(sys.executable, [sys.executable, "-m", "faults", *sys.argv[1:]], environment)
