"""The command line of inspections: whose labels, which checkpoints, one-line errors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers import HARDLY_TRAINED, make_paa
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.checkpoint import load_weights
from lad.cli import inspect_assignment as tool
from lad.data import get_dataset_dicts
from lad.engine.config import build, load_config
from lad.engine.inspection import labeled_mapper
from lad.inspection.compute import inspect_batch
from lad.inspection.data import to_data
from lad.modeling.distillation import LAD, CoLAD

TESTS = Path(__file__).parents[1]
PLAIN = str(TESTS / "engine/plain_config.py")


def read(path: Path) -> dict:
    """The data that a page embeds."""
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])


@pytest.fixture(scope="module")
def page(colad, tmp_path_factory) -> dict:
    """Of the training's validation images, without further arguments."""
    out = tmp_path_factory.mktemp("page") / "new/page.html"
    assert tool.main(["--config-file", str(colad), "--out", str(out)]) == 0
    return read(out)


def test_page_of_a_run(page, colad, images):
    assert [x["name"] for x in page["checkpoints"]] == ["iteration 3", "iteration 6", "model_final"]
    assert [x["name"] for x in page["images"]] == [x.name for x in images]
    assert page["networks"] == ["student", "teacher"]
    assert (page["scope"], page["indicator"]) == ("iteration", "std/mean")
    assert {x["note"] for x in page["images"]} == {""}
    # The last checkpoint's numbers are those of its weights.
    config = load_config(str(colad / "config.yaml"))
    model = build(config, "model")
    load_weights(model, str(colad / "model_final.pth"))
    mapper = labeled_mapper(config)
    batch = [mapper(x) for x in get_dataset_dicts("tiny_digits_val")]
    expected = json.loads(json.dumps(to_data(inspect_batch(model, batch))))
    assert page["checkpoints"][-1] == {"name": "model_final", **expected}
    assert page["checkpoints"][0] != page["checkpoints"][-1]


def test_an_image_has_its_labels_or_detections(page, colad, images, tmp_path):
    same = tmp_path / images[1].name  # a copy elsewhere, with the same name
    shutil.copy(images[1], same)
    other = tmp_path / "other.png"
    Image.open(images[1]).resize((96, 64)).save(other)
    out = tmp_path / "page.html"
    arguments = ["--config-file", str(colad), "--image", str(same), str(other)]
    tool.main([*arguments, f"--threshold={HARDLY_TRAINED}", f"--out={out}"])
    labeled, unlabeled = read(out)["images"]
    assert labeled["objects"] == page["images"][1]["objects"] and not labeled["note"]
    assert "no labels" in unlabeled["note"] and "at model_final" in unlabeled["note"]
    assert unlabeled["objects"]
    tool.main([*arguments, "--threshold=1", f"--out={out}", "--overwrite"])
    assert read(out)["images"][1]["objects"] == []


def test_an_image_of_another_size_is_another_image(colad, images, tmp_path):
    path = tmp_path / images[0].name
    Image.open(images[0]).resize((64, 64)).save(path)
    assert tool._record(path, get_dataset_dicts("tiny_digits_val")).keys() == {
        *("file_name", "height", "width")
    }


def test_an_image_with_the_name_of_another_has_not_its_labels(colad, images, tmp_path):
    path = tmp_path / images[0].name
    shutil.copy(images[1], path)
    records = get_dataset_dicts("tiny_digits_val")
    assert "annotations" not in tool._record(path, records)
    moved = [x | {"file_name": f"/elsewhere/{Path(x['file_name']).name}"} for x in records]
    assert tool._record(path, moved)["annotations"] == moved[0]["annotations"]


def test_one_network(student, page, tmp_path):
    out = tmp_path / "page.html"
    tool.main(["--config-file", PLAIN, "--checkpoints", str(student), "--count=1", f"--out={out}"])
    data = read(out)
    assert data["networks"] == ["detector"] and data["scope"] is None
    assert len(data["images"]) == 1 and data["checkpoints"][0]["name"] == "student"
    values = data["checkpoints"][0]["images"][0]["objects"][0]["costs"]["detector"]["values"]
    both = page["checkpoints"][-1]["images"][0]["objects"][0]["costs"]["student"]["values"]
    assert values == pytest.approx(both, rel=1e-3)


def test_the_final_checkpoint_stands_for_the_last_iteration(tmp_path):
    config = load_config("digits/lad.py", [f"train.output_dir={tmp_path}", "train.max_iter=300"])
    for name in ("0000299", "0000099", "best", "final"):
        (tmp_path / f"model_{name}.pth").touch()
    found = tool.find_checkpoints(Path("digits/lad.py"), config)
    assert [x.name for x in found] == ["model_0000099.pth", "model_final.pth"]


def test_a_teacher_that_a_checkpoint_leaves_out_comes_from_its_own(tmp_path):
    trained, teacher = make_paa(3), make_paa(4)
    torch.save({"model": teacher.state_dict()}, tmp_path / "teacher.pth")
    options = {"student": trained, "teacher": teacher, "save_teacher": False}
    torch.save({"model": LAD(**options).state_dict()}, tmp_path / "lad.pth")
    options = {"student": make_paa(), "teacher": make_paa()}
    model = LAD(**options, teacher_checkpoint=str(tmp_path / "teacher.pth"))
    tool.load_checkpoint(model, tmp_path / "lad.pth")
    for network, expected in ((model.student, trained), (model.teacher, teacher)):
        state = expected.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    with pytest.raises(ValueError, match=r"lacks weights of the teacher: set model\.teacher_check"):
        tool.load_checkpoint(LAD(**options), tmp_path / "lad.pth")
    # CoLAD trains its teacher: another checkpoint's would be wrong.
    options = {"student": make_paa(), "teacher": make_paa()}
    options["switch"] = RoleSwitch(indicator=StdMean())
    colad = CoLAD(**options, teacher_checkpoint=str(tmp_path / "teacher.pth"))
    with pytest.raises(ValueError, match=r"lacks \d+ of the model's weights: teacher\."):
        tool.load_checkpoint(colad, tmp_path / "lad.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "{tmp}/none.png"], "none.png: there is no such file"),
        (["--image", "{tmp}/text.png"], "text.png: it is no image, or is damaged"),
        (["--dataset", "tiny_digits_vall"], "did you mean tiny_digits_val"),
        (["--dataset", "{tmp}/two.json"], "has 2 classes, the model 10: name another --dataset"),
        (["--checkpoints", "{tmp}/none.pth"], "--checkpoints={tmp}/none.pth: "),
        (["--checkpoints", "{student}"], "none of its weights fits the model"),
        (["--count=0"], "--count has to be at least 1"),
        (["--threshold=2"], "--threshold a number from 0 to 1"),
        (["--device=tpu"], "--device='tpu': choose 'auto'"),
        (["model.anchors=1"], "unknown key model.anchors"),
        (["--out={tmp}/text.png"], "text.png exists: choose another --out, or add --overwrite"),
    ],
)
def test_errors_are_one_line_and_leave_no_page(
    arguments, message, colad, student, tmp_path, capsys, images
):
    (tmp_path / "text.png").write_text("no image")
    content = {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    content["images"] = [{"id": 1, "file_name": str(images[0]), "height": 96, "width": 96}]
    content["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 0, "area": 81}
    ]
    (tmp_path / "two.json").write_text(json.dumps(content))
    known = {"tmp": tmp_path, "student": student}
    out = tmp_path / "page.html"
    with pytest.raises(SystemExit) as error:
        filled = [x.format(**known) for x in arguments]
        tool.main(["--config-file", str(colad), f"--out={out}", *filled])
    assert error.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message.format(**known) in lines[-1] and "error: " in lines[-1]
    assert not out.exists()


def test_a_run_without_checkpoints(colad, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--config-file", PLAIN, f"--out={tmp_path}/x", f"train.output_dir={tmp_path}"])
    assert "holds no model_*.pth; name files with --checkpoints" in capsys.readouterr().err
