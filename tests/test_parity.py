"""The comparison with the official implementation, on the fixtures shipped here and any others."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
OFFICIAL = ROOT / "tests/data/official"
FAMILIES = "paa,std,lad,colad,kd,cop,copbase,io,iobase"
EXTRA = [folder for folder in os.environ.get("LAD_FIXTURES", "").split(os.pathsep) if folder]


def check_parity(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools/check_parity.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_everything_agrees_with_the_official_implementation():
    result = check_parity(str(OFFICIAL), *EXTRA, "--require", FAMILIES, "--quiet")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("parity: "), result.stdout


def test_mixture_agrees_with_scikit_learn_on_fresh_vectors():
    result = check_parity("--mixture-random", "300", "--seed", "7")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_required_family_that_is_absent_fails():
    result = check_parity(str(OFFICIAL), "--require", "gmm", "--quiet")
    assert result.returncode == 1 and "required but not compared: gmm" in result.stdout


def test_a_wrong_official_value_fails(tmp_path):
    data = dict(np.load(OFFICIAL / "s12_paa.npz"))
    data["loss_bbox"] = data["loss_bbox"] * 1.001
    np.savez(tmp_path / "s12_paa.npz", **data)
    result = check_parity(str(tmp_path), "--quiet")
    assert result.returncode == 1 and "loss_bbox" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--require", "gnn"], "unknown families ['gnn']"),
        (["no/such/folder"], "no/such/folder holds no .npz fixtures"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    result = check_parity(*arguments)
    assert result.returncode == 2 and message in result.stderr


@pytest.mark.parametrize("damage", [lambda x: x[:5000], lambda x: x[:5000] + b"." + x[5001:]])
def test_a_damaged_fixture_is_one_line(damage, tmp_path):
    (tmp_path / "s12_paa.npz").write_bytes(damage((OFFICIAL / "s12_paa.npz").read_bytes()))
    result = check_parity(str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("s12_paa.npz is damaged, or no .npz file")


def test_nothing_compared_fails():
    assert check_parity().returncode == 1
