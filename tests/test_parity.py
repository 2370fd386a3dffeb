"""The comparison with the official implementation, on the fixtures shipped here and any others."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from parity import dense, network
from parity.report import Report

ROOT = Path(__file__).parents[1]
OFFICIAL = ROOT / "tests/data/official"
FAMILIES = "paa,std,lad,colad,kd,cop,copbase,io,iobase"
EXTRA = [folder for folder in os.environ.get("LAD_FIXTURES", "").split(os.pathsep) if folder]


def check_parity(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools/check_parity.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_everything_agrees_with_the_official_implementation(tmp_path):
    # Without folders: the outputs shipped here, from any working directory.
    folders = [str(OFFICIAL), *EXTRA] if EXTRA else []
    result = check_parity(*folders, "--require", FAMILIES, "--quiet", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("parity: "), result.stdout


def test_mixture_agrees_with_scikit_learn_on_fresh_vectors():
    result = check_parity("--mixture-random", "300", "--seed", "7")
    assert result.returncode == 0, result.stdout + result.stderr


def test_runs_from_any_folder_with_relative_paths(tmp_path):
    (tmp_path / "fixtures").mkdir()
    (tmp_path / "fixtures/s12_std.npz").write_bytes((OFFICIAL / "s12_std.npz").read_bytes())
    result = check_parity("fixtures", "--require", "std", "--quiet", cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.startswith("parity: 1 cases"), result.stderr


def test_a_required_family_that_is_missing_fails():
    result = check_parity(str(OFFICIAL), "--require", "gmm", "--quiet")
    assert result.returncode == 1 and "required but not compared: gmm" in result.stdout


def test_a_wrong_official_value_fails(tmp_path):
    data = dict(np.load(OFFICIAL / "s12_paa.npz"))
    data["loss_bbox"] = data["loss_bbox"] * 1.001
    np.savez(tmp_path / "s12_paa.npz", **data)
    result = check_parity(str(tmp_path), "--quiet")
    assert result.returncode == 1 and "loss_bbox" in result.stdout


def test_a_box_that_is_not_finite_fails(tmp_path, capsys):
    ours = Instances((100, 100))
    ours.pred_boxes = Boxes(torch.tensor([[0.0, 0, 9, 9], [torch.nan, 0, 9, 9]]))
    ours.scores, ours.pred_classes = torch.tensor([0.5, 0.4]), torch.tensor([0, 0])
    report = Report(quiet=True)
    report.begin("case", "paa")
    boxes = np.array([[0.0, 0, 9, 9, 0.5], [0.0, 0, 9, 9, 0.4]], np.float32)
    dense.compare_detections("det", ours, boxes, np.array([0, 0]), report)
    assert report.finish(set()) == 1 and "det boxes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--require", "gnn"], "unknown families ['gnn']"),
        (["no/such/folder"], "no/such/folder: there is no such folder"),
        ([str(ROOT / "docs")], "docs holds no .npz fixtures"),
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


def test_nothing_compared_is_one_line(tmp_path):
    np.savez(tmp_path / "s12_other.npz", image_rgb=np.zeros(1))
    result = check_parity(str(tmp_path))
    assert result.returncode == 2 and not result.stdout
    error = result.stderr.splitlines()[-1]
    assert f"nothing was compared: no file of {tmp_path} is named after a family" in error


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("net_paa_r18", "paa/r18_1x.py"),
        ("net_paa_r101", "paa/r101_1x.py"),
        ("net_paa_x101_64x4d", "paa/x101_2x_ms.py"),
        ("net_paa_x101_64x4d_dcn", "paa/x101_dcn_2x_ms.py"),
        ("net_cop_r50", "cop/cop_r50_1x.py"),
        ("net_cop_no_iou_r18", "cop/cop_no_iou_r18_1x.py"),
        ("net_iop_r18", "cop/iop_r18_1x.py"),
    ],
)
def test_networks_are_built_from_the_configs(name, config):
    assert network.config_of(name) == ROOT / "configs" / config
    assert network.config_of(name).exists()


@pytest.mark.parametrize("name", ["net_paa_r34", "net_cop_x101_64x4d", "net_gfl_r50", "net_paa"])
def test_an_unknown_network_is_one_line(name, tmp_path):
    with pytest.raises(network.UnknownNetworkError, match=f"^{name}: no config for it"):
        network.config_of(name)
    np.savez(tmp_path / f"{name}.npz", image_rgb=np.zeros(1))
    result = check_parity(str(tmp_path))
    assert result.returncode == 2
    assert f"{name}: no config for it" in result.stderr.splitlines()[-1]
