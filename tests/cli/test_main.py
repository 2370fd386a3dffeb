"""The `lad` command."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lad import __version__
from lad.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lad"])


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_under_its_name(command, capsys):
    with pytest.raises(SystemExit) as error:
        main([command, "--help"])
    assert error.value.code == 0
    assert f"usage: lad {command}" in capsys.readouterr().out


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    assert re.findall(r"^  ([\w-]+)", capsys.readouterr().out, re.MULTILINE) == list(COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lad {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["trian"]])
def test_unknown_command(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "usage: lad COMMAND" in error
    assert ("there is no command 'trian'" in error) == bool(arguments)


def test_errors_name_the_command(capsys):
    with pytest.raises(SystemExit) as error:
        main(["eval", "--config-file", "digits/paa.py", "train.device=cpu"])
    assert error.value.code == 2
    message = "lad eval: error: --eval-only has nothing to evaluate"
    assert capsys.readouterr().err.startswith(message)


def test_wheel_holds_the_configs(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    # A copy, because setuptools writes beside the sources.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("projects", "configs", "setup.cfg", "setup.py", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run([*command, "-w", str(tmp_path), str(source)], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"lad/{x.relative_to(ROOT)}" for x in (ROOT / "configs").rglob("*.py")}
    assert configs and configs <= names
    pages = {f"lad/inspection/page.{suffix}" for suffix in ("html", "css", "js")}
    assert {"lad/cli/main.py", *pages} <= names
