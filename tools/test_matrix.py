"""Tests the project with the lowest, the pinned and the newest versions of what it needs.

    python tools/test_matrix.py --python 3.11 --versions lowest
    python tools/test_matrix.py --detectron2 ../detectron2
    python tools/test_matrix.py --python 3.12 --versions newest -- -q tests/ops

"lowest" is every lower bound of setup.cfg, "pinned" is constraints.txt, "newest" what pip finds.
Each combination with a Python that is there gets an environment of its own (5.5 GB, removed
afterwards), the tests run in it, and a line is added to the table. Arguments after -- go to pytest.
The exit status is 1 if tests failed or an environment could not be made.
"""

from __future__ import annotations

import argparse
import configparser
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12")
VERSIONS = ("lowest", "pinned", "newest")
# Newer ones have no pkg_resources, older ones cannot build Detectron2's wheel.
SETUPTOOLS = "setuptools==81.0.0"
HEADER = (
    "| date | Python | versions | torch | NumPy | Detectron2 | tests | result |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def lower_bounds(setup: str) -> dict[str, str]:
    """Returns the lowest allowed version by package, of the text of a setup.cfg."""
    config = configparser.ConfigParser()
    config.read_string(setup)
    lines = config["options"]["install_requires"].splitlines()
    for extra in config["options.extras_require"].values():
        lines += extra.splitlines()
    found = (re.match(r"([\w.-]+)\s*>=\s*([\w.]+)", line.strip()) for line in lines)
    return {match[1]: match[2] for match in found if match}


def find_python(version: str) -> str | None:
    """Returns an interpreter of a version such as "3.11", None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    own = [sys.executable] if sys.version.startswith(f"{version}.") else []
    inside = sorted(pyenv.glob(f"{version}.*/bin/python"))
    found = [*own, shutil.which(f"python{version}"), *map(str, reversed(inside))]
    # A shim of pyenv exists for versions that are not chosen, too.
    for path in filter(None, found):
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def constraints(versions: str, folder: Path) -> list[str]:
    """Returns pip's arguments for "lowest", "pinned" or "newest"."""
    if versions == "pinned":
        return ["-c", str(ROOT / "constraints.txt")]
    lines = [SETUPTOOLS]
    if versions == "lowest":
        lines += [f"{k}=={v}" for k, v in lower_bounds((ROOT / "setup.cfg").read_text()).items()]
    file = folder / f"{versions}.txt"
    file.write_text("\n".join(lines) + "\n")
    return ["-c", str(file)]


def make_environment(python: str, versions: str, detectron2: str | None, folder: Path) -> Path:
    """Makes an environment with everything; returns its interpreter.

    Raises:
        subprocess.CalledProcessError: if something cannot be installed.
    """
    own = str(folder / "venv/bin/python")
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pinned = [*pip, *constraints(versions, folder)]
    source = ["--no-deps", "--no-build-isolation", os.path.abspath(detectron2 or "")]
    for command in (
        [python, "-m", "venv", str(folder / "venv")],
        [*pinned, "setuptools", "wheel", "torch", "torchvision"],
        [*pinned, "--no-build-isolation", "--editable", f"{ROOT}[dev]"],
        [*pip, *source] if detectron2 else [own, str(ROOT / "tools/install_detectron2.py")],
    ):
        subprocess.run(command, check=True, cwd=ROOT)
    return Path(own)


def run_tests(python: Path, arguments: Sequence[str]) -> str:
    """Runs pytest; returns its last line, without the decoration."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    # Another checkout must not be tested in place of this one.
    environment["PYTHONPATH"] = str(ROOT / "projects")
    process = subprocess.Popen(
        [str(python), "-m", "pytest", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    last = "no output"
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    return last.strip("= ") if process.wait() == 0 else f"FAILED: {last.strip('= ')}"


def version(python: Path, package: str) -> str:
    """Returns the version of an installed package."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    command = [str(python), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def row(python: str, versions: str, detectron2: str | None, arguments: Sequence[str]) -> str:
    """Tests one combination and returns its line of the table."""
    with tempfile.TemporaryDirectory(prefix="test-matrix-") as folder:
        own = make_environment(python, versions, detectron2, Path(folder))
        result = run_tests(own, arguments)
        cells = [
            datetime.date.today().isoformat(),
            subprocess.check_output([str(own), "-V"], text=True).split()[1],
            versions,
            *(version(own, name) for name in ("torch", "numpy", "detectron2")),
            f"`{' '.join(arguments)}`" if arguments else "all",
            result,
        ]
    return f"| {' | '.join(cells)} |\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the combinations; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", nargs="+", choices=PYTHONS, default=PYTHONS)
    parser.add_argument("--versions", nargs="+", choices=VERSIONS, default=VERSIONS)
    parser.add_argument("--detectron2", metavar="DIR", help="a checkout to install instead of 0.6")
    parser.add_argument(
        "--table", type=Path, default=Path("output/test_matrix.md"), help="(default %(default)s)"
    )
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="of pytest, after --")
    args = parser.parse_args(argv)
    if args.detectron2 and not Path(args.detectron2, "setup.py").is_file():
        parser.error(f"--detectron2 {args.detectron2}: it has no setup.py; name a checkout")
    args.table.parent.mkdir(parents=True, exist_ok=True)
    if not args.table.is_file():
        args.table.write_text(HEADER)
    failed = 0
    for number in args.python:
        python = find_python(number)
        if python is None:
            print(f"Python {number}: there is none; left out", file=sys.stderr)
            continue
        for versions in args.versions:
            try:
                line = row(python, versions, args.detectron2, args.arguments)
            except subprocess.CalledProcessError as error:
                print(f"Python {number}, {versions}: {error}", file=sys.stderr)
                failed += 1
                continue
            with args.table.open("a") as table:
                table.write(line)
            print(line, end="", flush=True)
            failed += "FAILED" in line
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
