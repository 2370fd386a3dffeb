"""The studies: what is trained, stored and compared."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import studies.__main__ as command
from lad.engine.config import CONFIGS
from studies import STUDIES, digits_paper, matrix, reproduce
from studies.runner import jobs, results, tables
from studies.runner.costs import costs
from studies.runner.definition import Method, Study
from studies.runner.jobs import Runner
from studies.runner.pages import refreshed, unknown_intervals
from studies.runner.plots import draw

SMALL = ("train.max_iter=4",)
STUDY = Study(
    name="small",
    question="faster",
    overrides=SMALL,
    seeds=(0, 1),
    methods=(
        Method("teacher", "digits/teacher.py", seeds=(5,)),
        Method("paa", "digits/paa.py"),
        Method("lad", "digits/lad.py", teacher="teacher", baseline="paa"),
    ),
)


@pytest.fixture
def runner(tmp_path) -> Runner:
    return Runner(STUDY, tmp_path / "results/small", tmp_path / "output", tmp_path)


def run_of(ap: float, **other) -> dict:
    network = {"AP": ap, "AP50": 2 * ap, "AP75": 5.0, "best": {}, "classes": {}}
    network["curve"] = {"iteration": [2, 4], "AP": [0.0, ap]}
    return {
        "config_hash": None,
        "iterations": 4,
        "seconds": 10,
        "networks": {"student": network},
        "switch": None,
    } | other


def store(runner: Runner, method: str, *aps: float, **other) -> None:
    for seed, ap in enumerate(aps):
        results.store(results.path(runner.results, method, seed), run_of(ap, **other))


def train_nothing(monkeypatch) -> list[tuple[str, int]]:
    made: list[tuple[str, int]] = []

    def run(self: Runner, method: Method, seed: int) -> None:
        made.append((method.name, seed))
        self.weights(method, seed).parent.mkdir(parents=True)
        self.weights(method, seed).touch()

    monkeypatch.setattr(Runner, "run", run)
    return made


def test_tables_by_hand(runner):
    assert tables.summary(STUDY, runner.results) == ""
    store(runner, "paa", 10.0, 12.0, 14.0)
    store(runner, "lad", 13.0, 14.0, 15.0)
    assert tables.summary(STUDY, runner.results).splitlines()[2:] == [
        "| paa | 4 | 3 | 12.0 ± 2.0 | 24.0 ± 4.0 | 5.0 ± 0.0 |",
        "| lad | 4 | 3 | 14.0 ± 1.0 | 28.0 ± 2.0 | 5.0 ± 0.0 |",
    ]
    # Gains 3, 2, 1: mean 2, deviation 1, t(0.975, 2) = 4.303, half = 4.303 / sqrt(3).
    assert tables.differences(STUDY, runner.results).splitlines()[2:] == [
        "| lad | paa | +3.0, +2.0, +1.0 | +2.0 (-0.5 to +4.5) |"
    ]
    assert tables.curves(STUDY, runner.results).splitlines()[2:] == [
        "| paa | 3 | 2: 0.0, 4: 12.0 |",
        "| lad | 3 | 2: 0.0, 4: 14.0 |",
    ]


def test_gains_between_two_machines_are_marked(runner):
    lad = STUDY.method("lad")
    store(runner, "paa", 1.0, 2.0, cpu="A", gpu=None)
    store(runner, "lad", 3.0, 5.0, cpu="A", gpu=None)
    assert tables.mean_gain(tables.pairs(runner.results, lad)) == "+2.5 (-3.9 to +8.9)"
    results.store(results.path(runner.results, "lad", 1), run_of(5.0, cpu="B", gpu=None))
    assert tables.differences(STUDY, runner.results).splitlines()[2:] == [
        "| lad | paa | +2.0, +3.0† | +2.5 (-3.9 to +8.9)† |"
    ]
    results.store(results.path(runner.results, "lad", 1), run_of(5.0, cpu="A", gpu="H200"))
    assert tables.mean_gain(tables.pairs(runner.results, lad)).endswith(")†")


def test_tables_of_two_networks_have_the_second_and_the_switch(runner):
    both = {"student": run_of(1.0)["networks"]["student"], "teacher": {"AP": 2.0}}
    store(runner, "paa", 1.0, networks=both, switch={"student_share": 0.25})
    line = tables.summary(STUDY, runner.results).splitlines()[2]
    assert line == "| paa | 4 | 1 | 1.0 | 2.0 | 5.0 | 2.0 | 0.25 |"


def test_cost_is_relative_to_the_most_frequent_baseline(runner):
    measured = costs(runner, STUDY.methods, rounds=1)
    assert measured["unit"] == "paa"
    assert measured["ratios"]["paa"] == 1.0
    assert set(measured["ratios"]) == {"teacher", "paa", "lad"}
    assert min(measured["ratios"].values()) > 0
    assert measured["torch"]


def test_cost_is_measured_on_digits_only(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "pcb", "--cost"])
    assert command.main() == 1
    assert "study: --cost: measured on digits only, and pcb has pcb" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["study.py", "demo", "--cost", "paa"])
    assert command.main() == 1
    assert "leave out their names" in capsys.readouterr().err


def test_cost_of_a_step_stands_in_the_table(runner):
    store(runner, "paa", 1.0)
    store(runner, "lad", 2.0)
    results.store(results.cost_path(runner.results), {"unit": "paa", "ratios": {"lad": 1.456}})
    header, _, paa, lad = tables.summary(STUDY, runner.results).splitlines()
    assert header.endswith("| CPU time of a step's losses and gradients, paa = 1 |")
    assert paa.endswith("| 5.0 |  |")
    assert lad.endswith("| 5.0 | 1.46 |")


def test_only_what_is_not_stored_is_trained_and_teachers_first(runner, monkeypatch):
    made = train_nothing(monkeypatch)
    store(runner, "paa", 1.0, 2.0)
    store(runner, "lad", 1.0)
    runner.run_all(["paa", "lad"], None, workers=1)
    assert made == [("teacher", 5), ("lad", 1)]
    made.clear()
    runner.run_all(["paa", "lad"], [0], workers=1)
    assert made == []


def test_without_the_teacher_of_another_process_no_student_is_trained(runner, monkeypatch):
    made: list[str] = []
    monkeypatch.setattr(Runner, "run", lambda _, method, seed: made.append(method.name))
    with pytest.raises(RuntimeError, match="lad: another process trains the weights"):
        runner.run_all(["paa", "lad"], [0], workers=2)
    assert sorted(made) == ["paa", "teacher"]


def test_configs_are_loaded_in_several_threads(runner):
    methods = [STUDY.method("paa"), STUDY.method("lad")] * 20
    with ThreadPoolExecutor(8) as pool:
        configs = list(pool.map(runner.config, methods))
    assert all(config.train.max_iter == 4 for config in configs)


def test_a_teacher_with_weights_is_not_trained_again(runner, monkeypatch):
    made = train_nothing(monkeypatch)
    weights = runner.weights(STUDY.method("teacher"), 5)
    weights.parent.mkdir(parents=True)
    weights.touch()
    runner.run_all(["lad"], [0], workers=1)
    assert made == [("lad", 0)]


def test_a_run_of_an_equal_config_in_another_study_is_taken(runner, monkeypatch):
    made = train_nothing(monkeypatch)
    key = runner.config_hash(STUDY.method("paa"))
    other = runner.results.parent / "other/alone_seed1.json"
    results.store(other, run_of(7.0, config_hash=key))
    runner.run_all(["paa"], None, workers=1)
    assert made == [("paa", 0)]
    copy = results.read(results.path(runner.results, "paa", 1))
    assert (copy["networks"]["student"]["AP"], copy["method"], copy["study"]) == (
        7.0,
        "paa",
        "small",
    )


def test_a_stored_run_of_another_config_is_refused(runner, monkeypatch):
    train_nothing(monkeypatch)
    store(runner, "paa", 1.0, config_hash="0123456789abcdef")
    with pytest.raises(ValueError, match=r"paa_seed0.json was trained with another config"):
        runner.run_all(["paa"], None, workers=1)


def test_config_hash_covers_overrides_and_teacher_but_no_folder_nor_seed(runner, tmp_path):
    lad = STUDY.method("lad")
    key = runner.config_hash(lad)
    assert Runner(STUDY, tmp_path, tmp_path / "elsewhere", tmp_path).config_hash(lad) == key
    longer = Method("lad", "digits/lad.py", ("optimizer.lr=0.1",), teacher="teacher")
    assert Runner(STUDY, tmp_path, runner.output, tmp_path).config_hash(longer) != key
    teacher = Method("teacher", "digits/teacher.py", ("optimizer.lr=0.1",), seeds=(5,))
    changed = Study("small", "faster", (teacher, *STUDY.methods[1:]), SMALL, (0, 1))
    assert Runner(changed, tmp_path, runner.output, tmp_path).config_hash(lad) != key


def test_a_training_is_stored_with_curve_and_versions(runner, monkeypatch, tmp_path):
    """The training itself is replaced by the files that it leaves."""

    def start(arguments, log, *, threads):
        folder = next(x.partition("=")[2] for x in arguments if x.startswith("train.output_dir="))
        rows = [
            {"iteration": 1, "total_loss": 2.0, "bbox/AP": 30.0, "bbox/AP-a": 30.0},
            {"iteration": 3, "total_loss": 1.0},
            {"iteration": 4, "bbox/AP": 20.0, "bbox/AP50": None, "bbox/AP-a": 20.0},
        ]
        with open(f"{folder}/metrics.json", "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(jobs, "start_training", start)
    method = STUDY.method("paa")
    runner.run(method, 1)
    run = results.read(results.path(runner.results, "paa", 1))
    student = run["networks"]["student"]
    assert student["AP"] == 20.0
    assert student["AP50"] is None
    assert student["classes"] == {"a": 20.0}
    assert student["best"] == {"AP": 30.0, "iteration": 2}
    assert student["curve"] == {"iteration": [2, 4], "AP": [30.0, 20.0]}
    assert run["config_hash"] == runner.config_hash(method)
    assert run["seed"] == 1
    assert run["torch"]


def test_a_failed_training_is_named(runner, monkeypatch):
    def start(arguments, log, *, threads):
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])

    monkeypatch.setattr(jobs, "start_training", start)
    with pytest.raises(RuntimeError, match="paa, seed 0: status 3, see .*output.txt"):
        runner.run_all(["paa"], [0], workers=1)
    assert not runner.results.exists()


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ((Method("a", "x"), Method("a", "y")), "two methods have the name 'a'"),
        ((Method("a", "x", teacher="b"), Method("b", "y")), "teacher 'b' of 'a' is no method"),
        ((Method("a", "x", baseline="c"),), "baseline 'c' of 'a' is no method before it"),
    ],
)
def test_wrong_studies_are_refused(methods, message):
    with pytest.raises(ValueError, match=message):
        Study("wrong", "faster", methods)


@pytest.mark.parametrize("name", STUDIES)
def test_configs_and_overrides_of_every_study_exist(name):
    study = STUDIES[name]
    for method in study.methods:
        assert (CONFIGS / method.config).is_file(), method.name


def test_pages_get_the_tables_of_the_stored_runs(runner):
    store(runner, "paa", 1.0)
    page = "before\n<!-- study: small summary -->\nold\n<!-- end of study -->\nafter\n"
    new = refreshed(page, {"small": STUDY}, runner.results.parent)
    assert "| paa | 4 | 1 | 1.0 | 2.0 | 5.0 |" in new
    assert "old" not in new
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert refreshed(new, {"small": STUDY}, runner.results.parent) == new
    with pytest.raises(ValueError, match="there is no table 'sum': choose from summary"):
        refreshed(page.replace("summary", "sum"), {"small": STUDY}, runner.results.parent)
    with pytest.raises(ValueError, match="there is no study 'small'"):
        refreshed(page, {}, runner.results.parent)


def test_intervals_in_sentences_are_those_of_a_table():
    def unknown(text: str, table: str) -> list[str]:
        return [interval for _, interval in unknown_intervals({Path("a"): text, Path("b"): table})]

    table = "| lad | paa | +1.0, +3.0 | +2.0 (-0.5 to +4.5) |\n"
    text = "LAD gains 2.0 (-0.5 to 4.5; two seeds), so PAA loses (95 % interval -4.5 to 0.5).\n"
    assert unknown(text + table, table) == []
    assert unknown("It takes 1.6 to 1.8 s (3 of them).", table) == []
    assert unknown("LAD gains 2.0 (-0.4 to 4.5).", table) == ["(-0.4 to 4.5)"]
    assert len(unknown(text, "")) == 2


def test_a_table_of_some_methods_in_the_order_of_the_page(runner):
    store(runner, "paa", 1.0)
    store(runner, "lad", 3.0)
    store(runner, "teacher", 5.0)
    studies = {"small": STUDY}
    page = "<!-- study: small summary lad -->\n<!-- end of study -->"
    with pytest.raises(ValueError, match="baseline 'paa' of 'lad' is no method before it"):
        refreshed(page, studies, runner.results.parent)
    new = refreshed(page.replace("lad", "paa lad"), studies, runner.results.parent)
    assert [line[:6] for line in new.splitlines()[3:5]] == ["| paa ", "| lad "]
    assert "teacher" not in new
    assert refreshed(new, studies, runner.results.parent) == new
    with pytest.raises(ValueError, match="study small has no method 'pa'"):
        refreshed(page.replace("lad", "pa"), studies, runner.results.parent)


def test_plot_of_stored_runs(runner, tmp_path):
    store(runner, "paa", 1.0, 2.0)
    store(runner, "lad", 2.0, 4.0)
    draw(STUDY, runner.results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_tables_in_the_docs_are_those_of_the_stored_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "--check"])
    assert command.main() == 0, capsys.readouterr().out


def test_unknown_names_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "digits"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == 2
    known = ", ".join(STUDIES)
    assert f"unknown study 'digits': choose from {known}" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["study.py", "digits_short", "pa"])
    assert command.main() == 1
    assert "study digits_short has no method 'pa': choose from teacher, paa" in (
        capsys.readouterr().err
    )


def test_methods_may_stand_behind_flags(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "digits_short", "--table", "pa"])
    assert command.main() == 1
    assert "has no method 'pa'" in capsys.readouterr().err


def test_every_row_of_the_paper_has_a_method_and_a_config():
    study = STUDIES["digits_paper"]
    for rows in reproduce.TABLES.values():
        for row in rows:
            assert study.method(row.method)
            assert (CONFIGS / row.config).is_file(), row.config


def test_table_of_the_paper_on_digits_by_hand(tmp_path):
    rows = reproduce.TABLES["table3"]
    study = STUDIES["digits_paper"]
    folder = tmp_path / study.name
    for name, aps in (("paa_wide", (10.0, 20.0)), ("lad_wide_from_small", (11.0, 23.0))):
        for seed, ap in enumerate(aps):
            results.store(results.path(folder, name, seed), run_of(ap))
    lines = digits_paper.paper_table(rows, folder).splitlines()[2:]
    assert lines[0] == "| paa_wide | 42.6 | 15.0 ± 7.1 |  |  | 2 |"
    assert lines[1] == "| kl_wide_from_small | 40.4 |  |  |  | 0 |"
    assert lines[2] == "| lad_wide_from_small | 43.3 | 17.0 ± 8.5 |  | +2.0 (-10.7 to +14.7) | 2 |"


def test_table_of_the_paper_on_coco_names_commands_and_what_they_need(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "table3", "--data", "coco"])
    assert reproduce.main() == 0
    text = capsys.readouterr().out
    assert "train_net.py --config-file configs/lad/r101_from_r50_1x.py --num-gpus 8" in text
    assert (
        "# needs output/paa/r50_1x/model_final.pth (not there yet): train configs/paa/r50_1x.py"
        in text
    )
    assert "87,960 iterations of 16 images" in text
    assert text.splitlines()[-1] == "| lad/r101_from_r50_1x.py | 43.3 |  |"
    figures = {"figures": {"": {"bbox": {"AP": 43.21}}}}
    folder = tmp_path / "output/lad/r101_from_r50_1x"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(figures))
    reproduce.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "| lad/r101_from_r50_1x.py | 43.3 | 43.2 |"


def test_nothing_is_started_once_the_trainings_are_stopped(runner, monkeypatch):
    started = []

    def start(arguments, log, *, threads):
        started.append(log)
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        threading.Timer(0.2, runner.terminate).start()
        return process

    monkeypatch.setattr(jobs, "start_training", start)
    with pytest.raises(RuntimeError, match="status -15|stopped before its start"):
        runner.run_all(["paa"], [0, 1, 2], workers=1)
    assert len(started) == 1
    with pytest.raises(RuntimeError, match="paa, seed 1: stopped before its start"):
        runner.run(STUDY.method("paa"), 1)


def test_a_run_that_another_process_has_stored_meanwhile_is_not_trained_again(runner, monkeypatch):
    def start(arguments, log, *, threads):
        raise AssertionError("trained")

    monkeypatch.setattr(jobs, "start_training", start)
    store(runner, "paa", 1.0)
    weights = runner.weights(STUDY.method("paa"), 0)
    weights.parent.mkdir(parents=True)
    weights.touch()
    runner.run(STUDY.method("paa"), 0)
    weights.unlink()
    with pytest.raises(AssertionError, match="trained"):
        runner.run(STUDY.method("paa"), 0)


def test_a_folder_of_another_config_is_refused(runner, monkeypatch):
    def start(arguments, log, *, threads):
        (log.parent / "last_checkpoint").touch()
        runner.weights(STUDY.method("teacher"), 5).touch()
        raise RuntimeError("stopped")

    monkeypatch.setattr(jobs, "start_training", start)
    with pytest.raises(RuntimeError, match="stopped"):
        runner.run_all(["teacher"], None, workers=1)
    other = Method("teacher", "digits/teacher.py", ("optimizer.lr=0.5",), seeds=(5,))
    study = replace(STUDY, methods=(other, *STUDY.methods[1:]))
    changed = Runner(study, runner.results, runner.output, runner.data)
    for names in (["teacher"], ["lad"]):
        with pytest.raises(ValueError, match="teacher_seed5 holds a training with another config"):
            changed.run_all(names, None, workers=1)
    assert not list(runner.results.glob("*"))


def test_a_folder_without_a_mark_has_the_config_of_its_stored_figures(runner):
    teacher = STUDY.method("teacher")
    runner.folder(teacher, 5).mkdir(parents=True)
    (runner.folder(teacher, 5) / "last_checkpoint").touch()
    with pytest.raises(ValueError, match="holds a training with another config .unknown"):
        runner.check_folder(teacher, 5)
    stored = run_of(1.0, config_hash=runner.config_hash(teacher))
    results.store(results.path(runner.results, "teacher", 5), stored)
    runner.check_folder(teacher, 5)


def test_further_seeds_and_seeds_that_no_method_has(runner, monkeypatch):
    made = train_nothing(monkeypatch)
    runner.run_all(["teacher", "paa"], [1, 7], workers=1)
    assert made == [("paa", 1), ("paa", 7)]
    with pytest.raises(ValueError, match="--seeds 1 7: teacher in studies/ are trained with other"):
        runner.run_all(["teacher"], [1, 7], workers=1)


def test_a_run_without_detections_has_ap_0(runner):
    store(runner, "paa", 4.0)
    store(runner, "lad", 3.0)
    nothing = {"student": run_of(1.0)["networks"]["student"] | {"AP": None, "AP50": None}}
    results.store(results.path(runner.results, "lad", 0), run_of(0.0, networks=nothing))
    lines = tables.summary(STUDY, runner.results).splitlines()
    assert lines[-1] == "| lad | 4 | 1 | 0.0 | 0.0 | 5.0 |"
    assert tables.differences(STUDY, runner.results).splitlines()[-1].endswith("| -4.0 | -4.0 |")


def test_matrix_of_losses_by_hand(tmp_path):
    pairs = {"digits_losses": ("lad", "lad_pkd"), "digits_lgd": ("lad", "lad_lgd")}
    for study, names in pairs.items():
        for name, aps in zip(names, ((10.0, 20.0), (12.0, 24.0)), strict=True):
            for seed, ap in enumerate(aps):
                results.store(results.path(tmp_path / study, name, seed), run_of(ap))
    # Gains 2 and 4: mean 3, deviation sqrt(2), t(0.975, 1) = 12.706, half = 12.706.
    page = "<!-- study: digits_losses matrix -->\n<!-- end of study -->"
    lines = refreshed(page, STUDIES, tmp_path).splitlines()
    cell = "+3.0 (-9.7 to +15.7)"
    assert f"| PAA, digits | the loss, on top of LAD |  | {cell} |  |  |  | {cell} |  |" in lines
    assert "| PAA, digits | LAD, on top of the loss |  |  |  |  |  |  |  |" in lines


def test_lad_on_top_of_a_loss_by_hand(tmp_path):
    for name, aps in {"paa": (1.0, 2.0), "lad": (2.0, 3.0), "paa_pkd": (5.0,)}.items():
        for seed, ap in enumerate(aps):
            results.store(results.path(tmp_path / "pcb_losses", name, seed), run_of(ap))
    results.store(results.path(tmp_path / "pcb_losses", "lad_pkd", 0), run_of(4.5))
    lines = matrix.matrix(tmp_path).splitlines()
    assert "| PAA, boards | the loss |  | +4.0 |  |  |  |  |  |" in lines
    assert "| PAA, boards | the loss, on top of LAD |  | +2.5 |  |  |  |  |  |" in lines
    row = "| PAA, boards | LAD, on top of the loss | +1.0 (+1.0 to +1.0) | -0.5 |  |  |  |  |  |"
    assert row in lines


def test_every_network_of_the_matrix_has_every_loss():
    for network, studies, *bases in matrix.NETWORKS:
        methods = {method.name: method for study in studies for method in study.methods}
        losses = {"ld"} if network.startswith("GFL") else set(matrix.LOSSES) - {"ld"}
        for base in bases:
            for loss in losses:
                assert methods[f"{base}_{loss}"].baseline == base
