"""The command line of predictions: the evaluation's detections, files, one-line errors."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import HARDLY_TRAINED as THRESHOLD
from lad.cli import predict as tool
from lad.media import Video, VideoWriter, read_image

TESTS = Path(__file__).parent
COLAD, PLAIN = (str(TESTS / f"engine/{name}_config.py") for name in ("detector", "plain"))


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_results_are_those_of_the_evaluation(colad, scenes, tmp_path, network):
    annotations = scenes.parent / "annotations/val.json"
    out = tmp_path / "results.json"
    arguments = [str(colad), str(scenes), f"--network={network}", "--threshold=0", f"--json={out}"]
    assert tool.main([*arguments, f"--annotations={annotations}"]) == 0
    evaluated = colad / "inference" / network / "coco_instances_results.json"
    found = json.loads(out.read_text())
    assert len(found) > 50
    assert found == json.loads(evaluated.read_text())


@pytest.fixture
def folder(images, tmp_path):
    """Two images in folders, and one broken."""
    for name, image in (("photos/a.png", images[0]), ("photos/sub/b.png", images[1])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(image.read_bytes())
    (tmp_path / "photos/broken.jpg").write_bytes(b"no image")
    return tmp_path


def test_tool_writes_pictures_and_tables_and_goes_on(colad, folder, predictor, capsys):
    photos, out = folder / "photos", folder / "out"
    arguments = [str(colad), str(photos), f"--output={out}", f"--threshold={THRESHOLD}"]
    tables = [f"--json={out}/results.json", f"--csv={out}/results.csv"]
    assert tool.main([*arguments, *tables]) == 1
    errors = capsys.readouterr().err
    assert errors.count("error: ") == 1
    assert f"error: {photos}/broken.jpg: it is no image, or is damaged" in errors
    assert "1 of 3 files could not be read" in errors
    assert sorted(str(x.relative_to(out)) for x in out.rglob("*.*")) == [
        *("a.png", "results.csv", "results.json", "sub/b.png")
    ]
    assert Image.open(out / "sub/b.png").size == (480, 480)
    found = {name: predictor(photos / name) for name in ("a.png", "sub/b.png")}
    expected = [
        {"image_id": number, "file_name": str(photos / name), **row}
        for number, name in enumerate(found, 1)
        for row in found[name].coco_results(range(1, 11))
    ]
    assert json.loads((out / "results.json").read_text()) == expected
    x0, y0, width, height = expected[0]["bbox"]
    box = found["a.png"].boxes[0].tolist()
    np.testing.assert_allclose([x0, y0, x0 + width, y0 + height], box, rtol=1e-5)
    with open(out / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(expected)
    best = {"file_name": str(photos / "a.png"), "frame": ""}
    best |= {"class": found["a.png"].names[0], "name": found["a.png"].names[0]}
    best |= {"score": str(round(found["a.png"].scores[0].item(), 4))}
    best |= dict(zip(("x0", "y0", "x1", "y1"), (str(round(x, 2)) for x in box), strict=True))
    assert rows[0] == best
    assert tool.main([*arguments, *tables, "--overwrite", "--batch-size=2"]) == 1


def test_tool_predicts_videos(colad, folder, images, predictor):
    frames = [read_image(path) for path in images[:3]]
    writer = VideoWriter(folder / "film.mp4", 10)
    try:
        for frame in frames:
            writer.write(frame)
    except OSError as error:
        pytest.skip(f"OpenCV without the codec: {error}")
    writer.close()
    out = folder / "out"
    arguments = [str(colad), f"{folder}/*.mp4", f"{folder}/photos/a.png", f"--output={out}"]
    table = f"--json={out}/results.json"
    assert tool.main([*arguments, table, f"--threshold={THRESHOLD}", "--batch-size=2"]) == 0
    video = Video(out / "film.mp4")
    assert (video.rate, video.num_frames) == (10, 3)
    assert [x.shape for x in video] == [(480, 480, 3)] * 3
    found = json.loads((out / "results.json").read_text())
    assert {(x["image_id"], x.get("frame")) for x in found} == {(1, 0), (2, 1), (3, 2), (4, None)}
    for number, frame in enumerate(Video(folder / "film.mp4")):
        expected = predictor(frame).scores.tolist()
        scores = [x["score"] for x in found if x.get("frame") == number]
        np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_tool_with_a_config_weights_and_classes(student, folder, capsys):
    out = folder / "results.csv"
    arguments = [PLAIN, f"--weights={student}", f"{folder}/photos/a.png", f"--csv={out}"]
    assert tool.main([*arguments, f"--threshold={THRESHOLD}", "--classes", "3", "4"]) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert {row["name"] for row in rows} <= {"3", "4"}
    assert f"{len(rows)} objects in 1 images: {out}" in capsys.readouterr().out


def test_names_that_are_no_text_keep_their_bytes(tmp_path):
    results = tool.Results([1], None)
    results.rows.append((os.fsdecode(b"caf\xe9.jpg"), "", 0, "cat", 0.5, 1, 2, 3, 4))
    (tmp_path / "old.csv").write_text("old")
    results.write(tmp_path / "r.json", tmp_path / "old.csv")
    assert b"caf\xe9.jpg,,0,cat" in (tmp_path / "old.csv").read_bytes()


def test_image_without_detections_has_a_picture_and_no_row(colad, folder):
    arguments = [str(colad), f"{folder}/photos/a.png", f"--output={folder}/out", "--threshold=1"]
    assert tool.main([*arguments, f"--csv={folder}/x.csv", f"--json={folder}/x.json"]) == 0
    assert (folder / "x.csv").read_text().splitlines() == [",".join(tool.COLUMNS)]
    assert json.loads((folder / "x.json").read_text()) == []
    assert (folder / "out/a.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}"], "nothing to write: add --output DIR"),
        (["{folder}/empty", "--output={folder}/out"], "empty: there are no images or videos"),
        (["{folder}/a.jpg", "--output={folder}/out"], "a.jpg: there is no such file"),
        (["{folder}/*.webp", "--output={folder}/out"], "webp: there are no images"),
        (["{a}", "--output={folder}/photos"], "photos/a.png: it is an input"),
        (["{a}", "--output={folder}/photos", "--overwrite"], "photos/a.png: it is an input"),
        (["{a}", "--csv={folder}/x.csv", "--json={folder}/x.csv"], "x.csv: it is an input or anot"),
        (["{a}", "--csv={folder}/old.csv"], "old.csv exists: choose another output"),
        (["{a}", "{folder}/again/a.png", "--output={folder}/out"], "out/a.png is of another input"),
        (["{a}", "--csv={folder}/x.csv", "--classes", "cat"], "classes: 'cat' is unknown; choose"),
        (["{a}", "--csv={folder}/x.csv", "--weights={a}"], "a.png: the file"),
        (["{a}", "--csv={folder}/x.csv", "--device=tpu"], "device='tpu': choose"),
        (["{a}", "--csv={folder}/x.csv", "--annotations={folder}/no.json"], "No such file"),
        (["{a}", "--csv={folder}/x.csv", "--annotations={folder}/old.csv"], "name a COCO annot"),
        (["{a}", "--csv={folder}/x.csv", "--annotations={val}"], "val.json: it has no image"),
    ],
)
def test_wrong_arguments_are_one_line(colad, folder, scenes, capsys, arguments, message):
    (folder / "empty").mkdir()
    (folder / "again").mkdir()
    (folder / "again/a.png").write_bytes((folder / "photos/a.png").read_bytes())
    (folder / "old.csv").write_text("precious")
    values = {"a": folder / "photos/a.png", "folder": folder}
    values["val"] = scenes.parent / "annotations/val.json"
    with pytest.raises(SystemExit) as exit_:
        tool.main([str(colad), *(text.format(**values) for text in arguments)])
    assert exit_.value.code == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "error: " in error
    assert message in error
    assert (folder / "old.csv").read_text() == "precious"
    assert not list(folder.glob("out/*"))


def test_annotations_give_ids_by_name_or_by_order(tmp_path):
    file = tmp_path / "annotations.json"
    categories = [{"id": 7, "name": "cat"}, {"id": 5, "name": "dog"}]
    images = [{"id": 3, "file_name": "sub/a.png"}, {"id": 4, "file_name": "a.png"}]
    file.write_text(json.dumps({"images": images, "categories": categories}))
    annotations = tool.Annotations.read(str(file))
    assert annotations.category_ids(["dog", "cat"]) == [5, 7]
    assert annotations.category_ids(["0", "1"]) == [5, 7]
    assert annotations.image_id(Path("x/sub/a.png")) == 3
    assert annotations.image_id(Path("x/a.png")) == 4
    with pytest.raises(ValueError, match="its categories cat, dog are not the model's classes 0,"):
        annotations.category_ids(["0", "1", "2"])


def test_code_and_commands_of_the_documentation_run(colad, student, folder, monkeypatch):
    page = (TESTS.parent / "docs/predict.md").read_text()
    shutil.copytree(colad, folder / "output/digits/lad")
    shutil.copytree(folder / "photos/sub", folder / "more")
    (folder / "photos/broken.jpg").unlink()
    Image.open(folder / "photos/a.png").save(folder / "photo.jpg")
    monkeypatch.chdir(folder)
    # The page's config is of other widths than the checkpoint.
    page = page.replace("configs/digits/lad.py", COLAD).replace(" film.mp4", "")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    assert Image.open("detections.png").size == (480, 480)
    commands = re.findall(r"^    python tools/predict.py (.*)$", page, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        assert tool.main(shlex.split(command)) == 0
    written = ["predictions/photo.jpg", "all/a.png", "all/sub/b.png", "objects.csv", "results.json"]
    assert all(Path(path).is_file() for path in written)
