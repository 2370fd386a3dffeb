"""Compares this project with outputs of the official implementation: runs tests/parity.

python tools/check_parity.py [DIR...] [--require FAMILY,...] [--mixture-random N [--seed S]]
"""

import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"

if __name__ == "__main__":
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    os.execve(sys.executable, [sys.executable, "-m", "parity", *sys.argv[1:]], environment)
