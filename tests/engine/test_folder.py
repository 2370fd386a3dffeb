"""A run's hold on its folder; more is in tests/faults/process.py."""

from __future__ import annotations

import pytest

from lad.engine.config_file import config_differences
from lad.engine.folder import locked, unchanged_if_refused


def test_the_lock_is_removed_with_the_folders_made_for_it(tmp_path):
    folder = tmp_path / "a/run"
    with locked(str(folder)):
        assert [x.name for x in folder.iterdir()] == [".lock"]
    assert not (tmp_path / "a").exists()
    with locked(str(folder)):
        (folder / "log.txt").touch()
    assert [x.name for x in folder.iterdir()] == ["log.txt"]


def test_parts_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / "model_final.pth.part").touch()
    with locked(str(tmp_path)):
        assert [x.name for x in tmp_path.iterdir()] == [".lock"]


def test_only_rank_0_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with locked(str(tmp_path)):
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("status", "kept"), [(2, False), (143, False), (1, True), (0, True)])
def test_what_a_refused_start_has_written(tmp_path, status, kept):
    (tmp_path / "config.yaml").write_text("old")
    (tmp_path / "log.txt").write_text("old\n")
    with pytest.raises(SystemExit), unchanged_if_refused(str(tmp_path), ["data"]):
        (tmp_path / "config.yaml").write_text("new")
        with open(tmp_path / "log.txt", "a") as file:
            file.write("new\n")
        (tmp_path / "data").mkdir()
        (tmp_path / "another_run").mkdir()
        (tmp_path / "another_run/model_final.pth").touch()
        raise SystemExit(status)
    assert (tmp_path / "another_run/model_final.pth").exists()
    assert (tmp_path / "config.yaml").read_text() == ("new" if kept else "old")
    assert (tmp_path / "log.txt").read_text() == ("old\nnew\n" if kept else "old\n")
    assert (tmp_path / "data").exists() == kept


def test_differences_of_configs():
    old = "train: {max_iter: 6, output_dir: a}\nmodel: {_target_: x, n: 1}"
    assert config_differences(old, old.replace("dir: a", "dir: b")) == ""
    line = config_differences(old, "train: {max_iter: 8}\nmodel: {_target_: x, n: 1, m: [2]}")
    assert line.endswith("counts: train.max_iter 6 -> 8, model.m nothing -> [2]")
    assert "cannot be read" in config_differences("a: [", old)
    many = "\n".join(f"a{i}: 1" for i in range(11))
    assert config_differences("", many).endswith(", and 3 more")
