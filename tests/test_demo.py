"""The demo without its trainings; `make demo` runs it."""

import json

import pytest

from studies import demo
from studies.digits_demo import study


@pytest.fixture(autouse=True)
def no_handler(monkeypatch):
    monkeypatch.setattr(demo.signal, "signal", lambda *_: None)


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--no-such-flag"], 2)])
def test_arguments_do_not_start_the_demo(arguments, status, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["demo.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        demo.main()
    assert exit_.value.code == status
    assert not list(tmp_path.iterdir())
    assert status or "Trains a teacher and a student alone" in capsys.readouterr().out


def store(folder, method, seed, ap):
    folder.mkdir(exist_ok=True)
    student = {"AP": ap, "AP50": ap + 20, "AP75": ap + 10}
    run = {"networks": {"student": student}}
    (folder / f"{method}_seed{seed}.json").write_text(json.dumps(run))


def test_gains_stand_beside_those_of_the_stored_seeds(tmp_path):
    here, stored = tmp_path / "here", tmp_path / "stored"
    for method, ap in {"teacher": 60, "paa": 40, "lad": 45.5, "solad": 52}.items():
        store(here, method, 0, ap)
    for seed, gain in enumerate((4.0, 7.0, 1.0)):
        for method, ap in {"paa": 39, "lad": 39 + gain, "solad": 49}.items():
            store(stored, method, seed, ap)
    lines = [line.split() for line in demo.comparison(here, stored).splitlines()]
    assert lines[1] == ["teacher", "60.0", "80.0", "70.0"]
    assert lines[3][:5] == ["lad", "45.5", "65.5", "55.5", "+5.5"]
    assert " ".join(lines[3][5:]) == "+4.0, from +1.0 to +7.0 (3 seeds)"
    assert " ".join(lines[4][5:]) == "+10.0, from +10.0 to +10.0 (3 seeds)"


def test_iterations_of_a_training(tmp_path):
    assert demo.iterations(tmp_path) == 0
    rows = [{"iteration": 19, "total_loss": 1.0}, {"iteration": 20, "bbox/AP": 3.0}]
    (tmp_path / "metrics.json").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert demo.iterations(tmp_path) == 20


def test_a_failed_training_ends_the_demo_with_one_line(tmp_path, monkeypatch, capsys):
    def fail(*_args, **_kwargs):
        raise RuntimeError("teacher, seed 0: status 1, see output.txt")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["demo.py"])
    monkeypatch.setattr(demo.Runner, "run_all", fail)
    monkeypatch.setattr(demo, "get_dataset_dicts", lambda names: [])
    assert demo.main() == 1
    error = capsys.readouterr().err
    assert "demo: teacher, seed 0: status 1, see output.txt\n" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("end", "status", "line"),
    [
        (KeyboardInterrupt, 130, "demo: stopped; the same command goes on"),
        (None, 1, "demo: another process trains output/demo/teacher_seed0"),
    ],
)
def test_a_demo_that_trains_nothing_ends_with_one_line(
    end, status, line, tmp_path, monkeypatch, capsys
):
    def run_all(*_args, **_kwargs):
        if end is not None:
            raise end

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["demo.py"])
    monkeypatch.setattr(demo.Runner, "run_all", run_all)
    monkeypatch.setattr(demo, "get_dataset_dicts", lambda names: [])
    assert demo.main() == status
    assert f"{line}\n" in capsys.readouterr().err


def test_the_stored_runs_are_those_of_the_study():
    folder = demo.ROOT / "docs/results" / study.name
    for method in study.methods:
        runs = {path.stem for path in folder.glob(f"{method.name}_seed*.json")}
        assert runs == {f"{method.name}_seed{seed}" for seed in study.seeds_of(method)}
