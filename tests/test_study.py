"""The study's table and runs."""

import json
import sys

import pytest

import study


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    monkeypatch.setattr(study, "TEACHER", tmp_path / "teacher.pth")
    return tmp_path


def store(folder, method, seed, **metrics):
    (folder / f"{method}_seed{seed}.json").write_text(json.dumps(metrics))


def rows():
    return study.table().splitlines()[2:]


def test_table_has_mean_and_deviation_by_hand(results):
    assert rows() == []
    for seed, ap in enumerate((10.0, 12.0, 14.0)):
        store(results, "paa", seed, **{"bbox/AP": ap, "bbox/AP50": 2 * ap, "bbox/AP75": 5.0})
    store(
        results,
        "colad_stdmean",
        0,
        **{"student/bbox/AP": 1.0, "teacher/bbox/AP": 2.0, "switch/student_share": 0.25},
    )
    assert rows() == [
        "| paa | 3 | 12.0 ± 2.0 | 24.0 ± 4.0 | 5.0 ± 0.0 |  |  |",
        "| colad_stdmean | 1 | 1.0 |  |  | 2.0 | 0.25 |",
    ]


@pytest.mark.parametrize(
    ("has_teacher", "expected"),
    [(False, [("teacher", 0), ("lad", 1)]), (True, [("lad", 1)])],
)
def test_stored_runs_are_not_repeated_but_a_missing_teacher_is_trained(
    results, monkeypatch, has_teacher, expected
):
    made = []
    monkeypatch.setattr(study, "run", lambda *job: made.append(job))
    for method, seed in (("paa", 0), ("paa", 1), ("lad", 0), ("teacher", 0)):
        store(results, method, seed)
    if has_teacher:
        study.TEACHER.touch()
    monkeypatch.setattr(sys, "argv", ["study.py", "paa", "lad", "--seeds", "0", "1"])
    assert study.main() == 0
    assert made == expected
    made.clear()
    monkeypatch.setattr(sys, "argv", ["study.py", "paa", "lad", "--seeds", "0"])
    assert study.main() == 0
    assert made == []


def test_unknown_method_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "pa"])
    with pytest.raises(SystemExit) as exit_:
        study.main()
    assert exit_.value.code == 2
    assert "unknown method pa: choose from paa," in capsys.readouterr().err
