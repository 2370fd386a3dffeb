"""Exported files: what `lad export` writes and refuses, and predictions of the files."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from PIL import Image

from helpers import HARDLY_TRAINED, make_retinanet
from lad import Predictor
from lad.cli import export_model
from lad.cli import predict as predict_tool
from lad.export import runtime
from lad.export.compare import unmatched
from lad.export.describe import describe
from lad.export.runtime import ExportedDetector
from lad.export.write import export_detector

PLAIN = str(Path(__file__).parents[1] / "engine/plain_config.py")


def run_tool(*arguments):
    return export_model.main([str(x) for x in arguments])


def assert_same(found, expected):
    """Up to the tolerances of an export."""
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-2)
    assert found.names == expected.names
    assert torch.equal(found.classes, expected.classes)


def test_predictions_of_a_file_are_those_of_the_run(onnx_file, colad, images, predictor):
    exported = Predictor(onnx_file, threshold=HARDLY_TRAINED, batch_size=2)
    found = list(exported.stream(images))
    assert len(found) == len(images)
    for path, detections in zip(images, found, strict=True):
        assert len(detections) > 3
        assert_same(detections, predictor(path))
    assert exported.names == predictor.names
    assert exported.category_ids() == predictor.category_ids()
    only = Predictor(str(onnx_file), threshold=HARDLY_TRAINED, classes=[found[0].names[0]])
    assert set(only(images[0]).names) == {found[0].names[0]}
    assert exported.draw(images[0], found[0]).size == (480, 480)


def test_a_file_of_one_size_fits_larger_images_in(onnx_file, images):
    large = np.asarray(Image.open(images[0]).convert("RGB").resize((300, 192)))
    found = Predictor(onnx_file, threshold=HARDLY_TRAINED)(large)
    assert len(found) > 3
    assert found.boxes[:, 2].max() > 96 and (found.boxes.max(dim=0).values <= 300).all()


@pytest.mark.parametrize("size", [(64, 64), (57, 203), (150, 20)])
def test_nms_inside_at_any_size_gives_the_detections_without_voting(dynamic_file, two_levels, size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    boxes, scores, classes = ExportedDetector(dynamic_file)(image)
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    with torch.no_grad():
        expected = two_levels([{"image": pixels, "height": size[0], "width": size[1]}])
    expected = expected[0]["instances"]
    assert len(expected) > 3
    np.testing.assert_allclose(boxes, expected.pred_boxes.tensor, atol=1e-2)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
    assert (classes == expected.pred_classes.numpy()).all()


def test_images_of_any_size_are_compared_at_two(scenes, two_levels):
    mapper = DatasetMapper(is_train=False, augmentations=[], image_format="RGB")
    for size, number in ((None, 2), ((64, 64), 1)):
        data = describe(two_levels, mapper, class_names=["a", "b", "c"], size=size)
        for dataset, name in (("tiny_digits_val", "images of tiny_d"), ("nowhere", "drawn digit")):
            images, what = export_model.comparison_images(dataset, data)
            assert len(images) == 4 and what.startswith(name)
            sizes = {data.padded(*data.resized(*x.shape[:2])) for x in images}
            assert len(sizes) == number


def test_the_file_has_fixed_outputs_metadata_and_no_teacher(onnx_file, dynamic_file, student):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model)
    shapes = {
        value.name: [x.dim_value or x.dim_param for x in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    number = 10 * (24 * 24 + 12 * 12 + 6 * 6)
    assert shapes == {
        "image": [3, 96, 96],
        "image_size": [2],
        "boxes": [number, 4],
        "scores": [number],
        "classes": [number],
    }
    assert not {"NonZero", "Compress", "If", "Loop"} & {x.op_type for x in model.graph.node}
    properties = {x.key: x.value for x in model.metadata_props}
    assert properties["class_names"].startswith('["0", "1", ')
    assert properties["pixel_mean"] == "[123.675, 116.28, 103.53]"
    weights = torch.load(student, weights_only=True)["model"]
    assert onnx_file.stat().st_size < sum(4 * x.numel() for x in weights.values()) + 3e5
    assert not any(b"site-packages" in x.read_bytes() for x in (onnx_file, dynamic_file))
    model = onnx.load(dynamic_file)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [x.dim_value or x.dim_param for x in dims] == [3, "height", "width"]
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 100


def test_pt2_and_the_teacher_of_a_run(colad, images, tmp_path, capsys):
    path = tmp_path / "sub/teacher.pt2"
    assert run_tool(colad, "--network=teacher", "--size=96x96", f"--output={path}") == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    assert printed[0].startswith(f"{path}: ") and "model_final.pth" in printed[0]
    assert printed[1].startswith("equal to PyTorch on 4 images of tiny_digits_val, inputs of 96x96")
    teacher = Predictor(colad, network="teacher", threshold=HARDLY_TRAINED)
    exported = Predictor(path, threshold=HARDLY_TRAINED, trusted=True)
    assert_same(exported(images[0]), teacher(images[0]))
    assert sorted(x.name for x in path.parent.iterdir()) == ["teacher.pt2"]


def test_a_config_and_weights_without_test_images(
    student, images, tmp_path, monkeypatch, capsys, caplog
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export_model, "_test_images", lambda _: [])
    arguments = [PLAIN, f"--weights={student}", "--format=pt2", "--size=96x96", "--nms"]
    assert run_tool(*arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("--nms: the file has no score voting")
    assert "drawn digit scenes, because there are no test images" in printed
    assert len(Predictor("model.pt2", threshold=0, trusted=True)(images[0])) > 3
    assert not [x for x in caplog.records if x.levelno >= logging.WARNING]


def test_a_retinanet_is_exported_too(tmp_path):
    network = make_retinanet().eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(network.head.cls_score.weight, std=0.3)
    mapper = DatasetMapper(is_train=False, augmentations=[], image_format="BGR")
    data = describe(network, mapper, class_names=["a", "b", "c"], size=(64, 64))
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    found = export_detector(network, tmp_path / "x.pt2", data, [image])
    assert found.detections > 0
    detector = ExportedDetector(tmp_path / "x.pt2", trusted=True)
    boxes, scores, classes = detector(image)
    with torch.no_grad():
        bgr = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())
        expected = network([{"image": bgr, "height": 50, "width": 60}])[0]["instances"]
    np.testing.assert_allclose(boxes, expected.pred_boxes.tensor, atol=1e-2)
    assert (classes == expected.pred_classes.numpy()).all()


def test_the_documented_code_gives_the_same(onnx_file, images, colad, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/export.md").read_text()
    monkeypatch.chdir(tmp_path)
    for name in ("student.onnx", "small.onnx"):
        Path(name).write_bytes(onnx_file.read_bytes())
    Image.open(images[0]).convert("RGB").save("photo.jpg")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    expected = Predictor(colad, threshold=0)("photo.jpg")
    expected = tuple(x.numpy() for x in (expected.boxes, expected.scores, expected.classes))
    found = tuple(names[name] for name in ("boxes", "scores", "classes"))
    assert len(found[0]) == len(expected[0]) > 10
    assert len(unmatched(found, expected)) == len(unmatched(expected, found)) == 0


def test_other_outputs_remove_the_file_and_name_the_tensor(colad, tmp_path, monkeypatch, capsys):
    run = ExportedDetector.run

    def wrong(self, image, size):
        boxes, scores, classes = run(self, image, size)
        return boxes + 1, scores, classes

    monkeypatch.setattr(ExportedDetector, "run", wrong)
    assert run_tool(colad, "--size=96x96", f"--output={tmp_path}/x.pt2") == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert f"error: {tmp_path}/x.pt2: removed, because boxes differ at an input of 96 x 96" in error
    assert list(tmp_path.iterdir()) == []


def test_the_predict_tool_takes_a_file(onnx_file, images, tmp_path, colad):
    for name, source in (("onnx", onnx_file), ("run", colad)):
        arguments = [str(source), str(images[0]), f"--csv={tmp_path}/{name}.csv"]
        assert predict_tool.main([*arguments, f"--threshold={HARDLY_TRAINED}"]) == 0
    files = [(tmp_path / f"{name}.csv").read_text().splitlines() for name in ("onnx", "run")]
    assert len(files[0]) == len(files[1]) > 3
    columns = [[row.split(",")[:4] for row in rows] for rows in files]
    assert columns[0] == columns[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--output={here}/old.onnx"], "old.onnx exists: remove it or choose another"),
        (["{run}", "--output={here}/x.pb"], "x.pb: name a file that ends in .onnx or .pt2"),
        (
            ["{run}", "--format=pt2", "--output={here}/x.onnx"],
            "with --format pt2 it has to end in .pt2",
        ),
        (["{run}", "--size=100x96", "--output={here}/x.pt2"], "multiples of 16, such as 112x96"),
        (["{run}", "--size=100", "--output={here}/x.pt2"], "'100' is not HEIGHTxWIDTH"),
        (["{run}", "--size=96x96", "--dynamic"], "not allowed with argument --size"),
        (["{here}/old.onnx", "--output={here}/x.pt2"], "old.onnx: it is exported already; name"),
        (["nowhere", "--output={here}/x.pt2"], "nowhere: it holds no config.yaml"),
        ([PLAIN, "--output={here}/x.pt2"], "weights: none are named"),
    ],
)
def test_wrong_arguments_are_one_line(colad, tmp_path, capsys, arguments, message):
    (tmp_path / "old.onnx").write_text("precious")
    with pytest.raises(SystemExit) as stop:
        run_tool(*(x.format(run=colad, here=tmp_path) for x in arguments))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [x.name for x in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_text() == "precious"


def test_a_missing_package_is_one_line(colad, onnx_file, tmp_path, monkeypatch, capsys):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(runtime, "import_module", missing)
    with pytest.raises(SystemExit):
        run_tool(colad, f"--output={tmp_path}/x.onnx")
    assert "needs the package onnx: pip install 'lad[export]'" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"student.onnx: it needs the package onnxruntime: pip"):
        Predictor(onnx_file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "x.pth"}, "student.onnx: an exported file has its own; leave weights out"),
        ({"network": "student"}, "student.onnx: an exported file has its own; leave network out"),
        ({"device": "tpu"}, "device='tpu': choose"),
        ({"run": "nowhere.onnx"}, "nowhere.onnx: there is no such file"),
        ({"run": "{here}/bad.onnx"}, "bad.onnx: ONNX Runtime cannot open it"),
        ({"run": "{here}/bad.pt2"}, "bad.pt2: a .pt2 file can run any code: use an .onnx file"),
        (
            {"run": "{here}/bad.pt2", "trusted": True},
            "bad.pt2: it is no exported program",
        ),
        ({"run": "{here}/foreign.onnx"}, "foreign.onnx: its metadata lack class_names, category"),
    ],
)
def test_wrong_files_are_one_line(onnx_file, tmp_path, options, message):
    onnx = pytest.importorskip("onnx")
    for suffix in ("onnx", "pt2"):
        (tmp_path / f"bad.{suffix}").write_text("no model")
    model = onnx.load(onnx_file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    options = {"run": str(onnx_file)} | options
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        Predictor(options.pop("run").format(here=tmp_path), **options)
    assert "\n" not in str(error.value)
