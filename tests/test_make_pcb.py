"""Circuit-board crops from DeepPCB's layout."""

import json

import pytest
from PIL import Image

import make_pcb
from lad.data.folders import read_folder


@pytest.fixture
def source(tmp_path):
    """Two boards to train, one to test; the second has no defect."""
    root = tmp_path / "PCBData"
    names = {"trainval.txt": ("1", "2"), "test.txt": ("3",)}
    labels = {
        # Two of the defects share the last crop of the grid; one is cut by its border.
        "1": "10 10 30 40 1\n600,600,620,630,4\n380 500 400 520 2\n",
        "2": "",
        "3": "200 200 230 230 6\n",
    }
    for listed, boards in names.items():
        rows = []
        for name in boards:
            (root / f"group{name}/{name}_not").mkdir(parents=True)
            (root / f"group{name}/{name}").mkdir()
            Image.new("L", (640, 640), int(name)).save(root / f"group{name}/{name}/{name}_test.jpg")
            (root / f"group{name}/{name}_not/{name}.txt").write_text(labels[name])
            rows.append(f"group{name}/{name}/{name}.jpg group{name}/{name}_not/{name}.txt")
        (root / listed).write_text("\n".join(rows) + "\n")
    return root


def test_crop_with_most_defects_by_hand(source, tmp_path):
    target = tmp_path / "pcb"
    assert make_pcb.make(source, target) == {"train": (1, 2), "val": (1, 1)}
    content = json.loads((target / "annotations/train.json").read_text())
    boxes = [(x["category_id"], x["bbox"]) for x in content["annotations"]]
    # The crop starts at (384, 384); the last defect's left side lies before it.
    assert boxes == [(4, [216, 216, 20, 30]), (2, [0, 116, 16, 20])]
    val = json.loads((target / "annotations/val.json").read_text())
    assert val["annotations"][0]["bbox"] == [200, 200, 30, 30]
    with Image.open(target / "train/00001.jpg") as crop:
        assert crop.size == (256, 256)


def test_result_is_a_folder_for_training(source, tmp_path):
    make_pcb.make(source, tmp_path / "pcb")
    layout = read_folder(str(tmp_path / "pcb"))
    assert tuple(layout.class_names) == make_pcb.CLASSES
    assert {split: len(photos) for split, photos in layout.splits.items()} == {"train": 1, "val": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, t: (s / "test.txt").unlink(), "has no test.txt: give DeepPCB's folder PCBData"),
        (lambda s, t: t.mkdir(), "exists: name a new folder"),
        (
            lambda s, t: (s / "group3/3_not/3.txt").write_text("1 2 3\n"),
            "'1 2 3' is not x1 y1 x2 y2 class",
        ),
    ],
)
def test_wrong_folders_are_one_line(source, tmp_path, change, message, monkeypatch, capsys):
    target = tmp_path / "pcb"
    change(source, target)
    monkeypatch.setattr("sys.argv", ["make_pcb.py", str(source), str(target)])
    assert make_pcb.main() == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
