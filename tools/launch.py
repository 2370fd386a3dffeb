"""What the tools do that only run a package beside the project's."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_module(name: str, folder: Path = ROOT) -> None:
    """Becomes ``python -m name`` with this process' arguments; the module lies in a folder."""
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    os.execve(sys.executable, [sys.executable, "-m", name, *sys.argv[1:]], environment)
