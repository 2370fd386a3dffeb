"""Reading of a run's metrics.json."""

import json

import pytest

from lad.metrics import read_metrics, series

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
