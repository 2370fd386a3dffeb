"""Runs the studies of studies/, and makes tables and plots of what they have stored.

python tools/study.py STUDY [METHOD...] [--seeds N...] [--workers N] [--table] | --check | --update
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    os.execve(sys.executable, [sys.executable, "-m", "studies", *sys.argv[1:]], environment)
