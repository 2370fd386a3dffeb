import json
import math

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from lad.data import build_coco_evaluator, coco, get_dataset_dicts, register_coco

BOXES = [
    (1, 1, (2, 3, 20, 10)),
    (1, 2, (30, 5, 10, 30)),
    (2, 1, (5, 5, 40, 40)),
    (3, 2, (0, 0, 12, 9)),
]
SIZES = [(64, 48)] * 3


def detections(seed, per_class=6):
    """Per image: the annotated boxes shaken, and random boxes of both classes."""
    generator = torch.Generator().manual_seed(seed)
    for image_id in (1, 2, 3):
        boxes = [box for i, _, box in BOXES if i == image_id]
        classes = [category - 1 for i, category, _ in BOXES if i == image_id]
        boxes += (torch.rand((2 * per_class, 4), generator=generator) * 30 + 1).tolist()
        classes += [0, 1] * per_class
        xywh = torch.tensor(boxes) + torch.rand((len(boxes), 4), generator=generator) * 3
        instances = Instances((48, 64))
        instances.pred_boxes = Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1))
        instances.scores = torch.rand(len(boxes), generator=generator)
        instances.pred_classes = torch.tensor(classes)
        yield {"image_id": image_id, "height": 48, "width": 64}, {"instances": instances}


def evaluate(evaluator, pairs):
    evaluator.reset()
    for image, output in pairs:
        evaluator.process([image], [output])
    return evaluator.evaluate()


@pytest.fixture
def registered(coco_files, dataset_name):
    register_coco(dataset_name, *coco_files(SIZES, BOXES))
    return dataset_name


def test_registration(registered, coco_files):
    metadata = MetadataCatalog.get(registered)
    records = DatasetCatalog.get(registered)
    assert metadata.thing_classes == ["cat", "dog"] and metadata.evaluator_type == "coco"
    assert len(records) == 3
    register_coco(registered, metadata.json_file, metadata.image_root)
    with pytest.raises(ValueError, match=rf"'{registered}' is registered already.*other name"):
        register_coco(registered, "other.json", metadata.image_root)


def test_perfect_detections_score_100(registered):
    def perfect():
        for image, output in detections(seed=0, per_class=0):
            boxes = [box for i, _, box in BOXES if i == image["image_id"]]
            xywh = torch.tensor(boxes, dtype=torch.float32)
            xyxy = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
            output["instances"].pred_boxes = Boxes(xyxy)
            yield image, output

    results = evaluate(build_coco_evaluator(registered), perfect())["bbox"]
    assert results["AP"] == pytest.approx(100) and results["AP-dog"] == pytest.approx(100)


def test_faster_evaluation_equals_pycocotools(registered, monkeypatch):
    fast = evaluate(build_coco_evaluator(registered), detections(seed=1))
    monkeypatch.setattr(coco, "_use_faster_coco_eval", lambda: False)
    reference = evaluate(build_coco_evaluator(registered), detections(seed=1))
    assert 0 < reference["bbox"]["AP50"] < 100
    assert fast["bbox"] == pytest.approx(reference["bbox"], rel=1e-12, nan_ok=True)


def test_without_any_detection_the_ap_is_nan(registered, tmp_path):
    image, output = next(detections(seed=0))
    empty = {"instances": output["instances"][:0]}
    evaluator = build_coco_evaluator(registered, output_dir=str(tmp_path / "inference"))
    assert math.isnan(evaluate(evaluator, [(image, empty)])["bbox"]["AP"])
    assert (tmp_path / "inference" / "coco_instances_results.json").read_text() == "[]"


def test_annotations_without_area_and_crowd_flag_are_evaluated(coco_files, dataset_name):
    json_file, image_root = coco_files(SIZES, BOXES)
    content = json.loads(json_file.read_text())
    for annotation in content["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    json_file.write_text(json.dumps(content))
    register_coco(dataset_name, json_file, image_root)
    results = evaluate(build_coco_evaluator(dataset_name), detections(seed=1))
    assert results["bbox"]["AP"] > 0


def test_evaluator_names_missing_files(dataset_name, tmp_path):
    register_coco(dataset_name, tmp_path / "absent.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.json does not exist"):
        build_coco_evaluator(dataset_name)


IMAGE = {"id": 1, "file_name": "1.png", "width": 8, "height": 8}
ANNOTATION = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"images": []}, "empty list 'images'"),
        ({"images": [{"id": 1, "file_name": "1.png", "width": 3}]}, r"images\[0\] has no 'height'"),
        ({"images": [IMAGE, IMAGE]}, r"images\[1\] has id 1, which another entry has"),
        ({"annotations": [{"id": 1}]}, r"annotations\[0\] has no 'image_id'"),
        ({"images": [{**IMAGE, "file_name": 1}]}, r"images\[0\] has a file_name that is no text"),
        ({"images": [{**IMAGE, "id": [1]}]}, r"images\[0\] has id \[1\], which is no id"),
        ({"annotations": [{**ANNOTATION, "image_id": None}]}, "image_id None, which is no id"),
        ({"annotations": [5]}, r"annotations\[0\] has no 'id'"),
        ({"annotations": [ANNOTATION] * 2}, r"annotations\[1\] has id 1, which another"),
        ({"annotations": [{**ANNOTATION, "image_id": 9}]}, "annotation 1 has image_id 9"),
        ({"annotations": [{**ANNOTATION, "category_id": 3}]}, "annotation 1 has category_id 3"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 2]}]}, r"annotation 1 has bbox \[1, 2\]"),
    ],
)
def test_wrong_entries_are_named(coco_files, dataset_name, replaced, message):
    register_coco(dataset_name, *coco_files([(8, 8)], **replaced))
    with pytest.raises(ValueError, match=rf"{dataset_name}.*annotations\.json.*{message}"):
        DatasetCatalog.get(dataset_name)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not a json file"), ("{}", "has no list 'images'")]
)
def test_wrong_files_are_named(dataset_name, tmp_path, text, message):
    json_file = tmp_path / "broken.json"
    json_file.write_text(text)
    register_coco(dataset_name, json_file, tmp_path)
    with pytest.raises(ValueError, match=rf"broken\.json {message}"):
        DatasetCatalog.get(dataset_name)


def test_path_of_a_json_file_is_a_dataset_name(coco_files):
    json_file, _ = coco_files([(8, 8)], images=[{**IMAGE, "file_name": "images/1.png"}])
    (record,) = get_dataset_dicts(str(json_file), filter_empty=False)
    assert record["file_name"] == str(json_file.parent / "images/1.png")
    assert build_coco_evaluator(str(json_file))._metadata.thing_classes == ["cat", "dog"]
