"""Reading of a run's metrics.json."""

import json

import pytest

from lad.metrics import cut_metrics, read_metrics, series

ROWS = [{"iteration": 19, "total_loss": 2.0}, {"iteration": 40, "bbox/AP": 12.0}]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"iteration": 41, "tot')
    assert read_metrics(path) == ROWS


def test_series_is_sorted_and_the_last_row_of_an_iteration_counts():
    rows = [{"iteration": 3, "x": 1.0}, {"iteration": 1, "x": 2.0}, {"iteration": 3, "x": 4.0}]
    assert series(rows, "x") == ([1, 3], [2.0, 4.0])
    assert series(rows, "y") == ([], [])


def test_a_missing_run_names_its_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_metrics(tmp_path / "nowhere.json")


def test_lines_that_a_resumed_run_writes_again_are_cut(tmp_path):
    path = tmp_path / "metrics.json"
    cut_metrics(path, 0)
    assert not path.exists()
    lines = [f'{{"iteration": {i}, "total_loss": null}}' for i in range(4)]
    path.write_text("\n".join([*lines[:2], '{"iteration": 1, "to{"a": 1}', *lines[2:], '{"it']))
    cut_metrics(path, 3)
    assert path.read_text().splitlines() == lines[:3]
    before = path.stat().st_ino
    cut_metrics(path, 3)
    assert path.stat().st_ino == before
    cut_metrics(path, 0)
    assert path.read_text() == ""
