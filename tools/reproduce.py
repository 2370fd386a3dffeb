"""Runs a table of the LAD paper in miniature, or says how to run it on COCO.

python tools/reproduce.py TABLE [--data digits|coco] [--seeds N...] [--workers N] [--show]
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    os.execve(
        sys.executable, [sys.executable, "-m", "studies.reproduce", *sys.argv[1:]], environment
    )
