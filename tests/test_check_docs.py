"""The tool that runs the commands of the documentation; the commands themselves are its work."""

from pathlib import Path

import pytest

import check_docs
from check_docs import Command, find_commands, first, run

PAGE = """# Page

    python train_net.py --config-file configs/lad/r50_from_r101_1x.py \\
        --num-gpus 2  # two

    OMP_NUM_THREADS=1 .venv/bin/torchrun train_net.py
    images --network--> predictions
`python a.py`
"""


def test_commands_of_a_page():
    assert list(find_commands("docs/page.md", PAGE)) == [
        Command(
            "docs/page.md",
            3,
            "python train_net.py --config-file configs/lad/r50_from_r101_1x.py --num-gpus 2",
        ),
        Command(
            "docs/page.md",
            6,
            "OMP_NUM_THREADS=1 .venv/bin/torchrun train_net.py",
        ),
    ]
    assert not list(find_commands("docs/page.md", ""))


def test_pages_have_commands():
    pages = [Path("README.md"), *Path("docs").glob("*.md")]
    commands = [x for page in pages for x in find_commands(str(page), page.read_text())]
    assert len(commands) > 40


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("make demo", "left out: installs"),
        (".venv/bin/pip uninstall -y detectron2", "left out: installs"),
        ("python train_net.py --config-file configs/paa/r50_1x.py --num-gpus 8", "checked"),
        ("python train_net.py --config-file configs/paa/no.py", "FAILED: --config-file "),
        ("python train_net.py --config-file configs/paa/r50_1x.py train.no=1", "FAILED: unknown"),
        ("python -c pass", "ran"),
        ("python -c 'raise SystemExit(3)'", "FAILED with 3: no output"),
        ("A=1 python -c 'print(1); 1 / 0'", "FAILED with 1: ZeroDivisionError"),
    ],
)
def test_outcome_of_a_command(text, outcome):
    assert run(text, check_docs.ROOT).startswith(outcome)


def test_first_images_with_their_objects():
    coco = {
        "categories": [],
        "images": [{"id": 4}, {"id": 2}],
        "annotations": [{"image_id": 2}, {"image_id": 4}],
    }
    assert first(coco, 1) == {
        "categories": [],
        "images": [{"id": 4}],
        "annotations": [{"image_id": 4}],
    }


def test_flags_and_overrides_of_commands_that_need_coco_are_checked():
    command = "python train_net.py --config-file configs/paa/r50_1x.py --num-gpus 8"
    assert run(command, check_docs.ROOT).startswith("checked: ")
    for wrong in ("--no-such-flag 8", "train.max_itr=4"):
        assert run(f"{command} {wrong}", check_docs.ROOT).startswith("FAILED: ")


def test_what_a_page_has_written_is_removed(tmp_path):
    (tmp_path / "folder/inside").mkdir(parents=True)
    for name in ("kept", "written"):
        (tmp_path / name).touch()
    check_docs.remove({tmp_path / "folder", tmp_path / "written"})
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    check_docs.remove(set())
