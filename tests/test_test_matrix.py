"""tools/test_matrix.py: the versions that it installs."""

import sys
from pathlib import Path

import pytest

import test_matrix
from test_matrix import ROOT, constraints, find_python, lower_bounds, run_tests

SETUP = """
[options]
install_requires =
    torch>=2.10.0
    iopath>=0.1.7,<0.1.11

    tabulate

[options.extras_require]
export =
    onnx-ir >= 0.1.7
dev =
    lad[export]
"""


def test_lower_bounds_of_every_requirement():
    assert lower_bounds(SETUP) == {"torch": "2.10.0", "iopath": "0.1.7", "onnx-ir": "0.1.7"}
    assert lower_bounds("[options]\ninstall_requires =\n[options.extras_require]\n") == {}


def test_every_requirement_of_the_project_has_a_lower_bound():
    text = (ROOT / "setup.cfg").read_text()
    required = text.split("install_requires =")[1].split("[options.packages.find]")[0]
    names = [x for x in required.splitlines() if x.strip() and not x.startswith("#")]
    assert len(names) > 15 and all(">=" in x for x in names)
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    for name in lower_bounds(text):
        assert f"\n{name.lower()}==" in pinned, f"{name} is not pinned"


def test_constraints(tmp_path):
    assert constraints("pinned", tmp_path) == ["-c", str(ROOT / "constraints.txt")]
    lowest = Path(constraints("lowest", tmp_path)[1]).read_text().splitlines()
    assert "setuptools==81.0.0" in lowest and "torch==2.10.0" in lowest
    newest = Path(constraints("newest", tmp_path)[1]).read_text().splitlines()
    assert newest == ["setuptools==81.0.0"]


def test_interpreters():
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert find_python(here) == sys.executable
    assert find_python("2.99") is None


def test_the_result_is_pytests_last_line(tmp_path):
    passing, failing = tmp_path / "test_a.py", tmp_path / "test_b.py"
    passing.write_text("def test():\n    pass\n")
    failing.write_text("def test():\n    assert False\n")
    python = Path(sys.executable)
    assert run_tests(python, ["-q", str(passing)]).startswith("1 passed")
    assert run_tests(python, ["-q", str(passing), str(failing)]).startswith("FAILED: 1 failed, 1 p")


def test_a_folder_without_setup_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        test_matrix.main(["--detectron2", str(tmp_path), "--table", str(tmp_path / "x.md")])
    assert error.value.code == 2
    assert f"--detectron2 {tmp_path}: it has no setup.py" in capsys.readouterr().err
