"""Files that are whole or absent."""

from __future__ import annotations

import pytest

from lad.files import write_text, written_aside


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with written_aside(path) as part, open(part, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(KeyError), written_aside(path) as part:
        open(part, "w").close()
        raise KeyError
    assert path.read_text() == "old"
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_a_name_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text("file", "")
    assert (tmp_path / "file").read_text() == ""


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "none/file", "text")
