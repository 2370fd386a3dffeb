"""One view of an annotation file for training and evaluation."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from ground_truth import own_ground_truth
from lad.data import build_coco_evaluator, get_dataset_dicts, register_coco
from lad.data.normalize import checked, clipped_box, leaves, normalize

NAN, INF = float("nan"), float("inf")
SIZE = (64, 48)
BOXES = [
    (1, 3, [2, 3, 20, 10]),
    (1, 7, [30, 5, 10, 30]),
    (2, 3, [5, 5, 40, 40]),
    (2, 7, [1, 1, 5, 5]),
]


def content(**edits):
    """A file of two images, the categories 3 and 7, and four boxes."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in (1, 2)]
    annotations = [
        {"id": i, "image_id": image, "category_id": label, "bbox": box}
        for i, (image, label, box) in enumerate(BOXES)
    ]
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    return {"images": images, "annotations": annotations, "categories": categories, **edits}


def write(folder, file):
    """Writes a file and its images; returns its path."""
    for image in file["images"]:
        Image.new("RGB", SIZE).save(folder / image["file_name"])
    (folder / "a.json").write_text(json.dumps(file))
    return str(folder / "a.json")


def test_boxes_are_clipped_as_in_the_docstring():
    assert clipped_box((60, 10, 20, 10), SIZE) == [60, 10, 4, 10]
    assert clipped_box((70, 10, 20, 10), SIZE) is None
    for box in ((NAN, 1, 2, 2), (1, 1, INF, 2), (1, 1, -5, 2), (1, 1, 0, 2), (-INF, 1, INF, 2)):
        assert clipped_box(box, SIZE) is None
    assert not leaves((-0.5, 0, 65, 48.5), SIZE) and leaves((-1.5, 0, 5, 5), SIZE)


def test_ordinary_annotations_stay_as_they_are():
    file = content(info={"year": 2026})
    for entry in file["annotations"]:
        entry.update(area=17.5, iscrowd=entry["id"] % 2, segmentation=[[1, 2, 3, 4, 5, 6.5]])
    found, changes = normalize(file)
    assert not changes and found["info"] == {"year": 2026}
    for before, after in zip(file["annotations"], found["annotations"], strict=True):
        assert after == {**before, "id": before["id"] + 1}
    assert found["images"] == file["images"] and found["categories"] == file["categories"]


def test_changes_are_counted_and_the_first_is_named():
    file = content()
    first, second, third, fourth = file["annotations"]
    first["bbox"] = [1, 1, INF, 4]
    second.update(bbox=[50, 10, 30, 10], area=300)
    third["segmentation"] = [[1, 2, 3, 4]]
    fourth["area"] = -1
    found, changes = normalize(file)
    assert [(x["id"], x["bbox"], x["area"]) for x in found["annotations"]] == [
        (1, [50, 10, 14, 10], 140),
        (2, [1, 1, 5, 5], 25),
    ]
    assert [change.rpartition(": ")[2] for change in changes] == [
        "2 of 4, the first is annotation 0",
        "1 of 4, the first is annotation 1",
        "1 of 4, the first is annotation 3",
    ]


def test_a_file_without_objects():
    assert normalize(content(annotations=[])) == (content(annotations=[]), [])


@pytest.mark.parametrize(
    "number",
    [
        lambda i: i,
        str,
        lambda i: -i - 1,
        lambda i: 2**53 + i,
        lambda i: 2**62 + i,
        lambda i: 10**30 - i,
    ],
    ids=["from 0", "text", "negative", "2^53", "2^62", "10^30"],
)
def test_any_annotation_ids_give_an_ap_of_100(tmp_path, number):
    file = content()
    for entry in file["annotations"]:
        entry["id"] = number(entry["id"])
    results, _ = own_ground_truth(write(tmp_path, file))
    assert results["AP"] == results["AP-cat"] == results["AP-dog"] == pytest.approx(100)


@pytest.mark.parametrize(
    "box",
    [[NAN, 1, 2, 2], [0, 0, INF, 5], [100, 0, 5, 5], [1, 1, 0, 5], [9, 9, -5, 5], [1e308] * 4],
)
def test_training_and_evaluation_leave_out_the_same_boxes(tmp_path, box):
    file = content()
    file["annotations"][1]["bbox"] = box
    name = write(tmp_path, file)
    results, records = own_ground_truth(name)
    assert results["AP"] == pytest.approx(100) and len(records[0]["annotations"]) == 1
    assert len(build_coco_evaluator(name)._coco_api.anns) == 3


def test_crowds_are_kept_and_ignored(tmp_path):
    file = content()
    file["annotations"][0]["iscrowd"] = 1
    results, records = own_ground_truth(write(tmp_path, file))
    assert results["AP"] == pytest.approx(100)
    assert [x["iscrowd"] for x in records[0]["annotations"]] == [1, 0]


@pytest.mark.parametrize(
    ("key", "edit", "message"),
    [
        ("images", {"id": "a"}, r"images\[0\] has id 'a', which is no whole number"),
        ("images", {"id": 2**60}, r"images\[0\] has id 1152921504606846976, which is no whole"),
        ("images", {"id": True}, r"images\[0\] has id True, which is no id"),
        ("images", {"width": 0}, r"images\[0\] has a height or width that is no number of pixels"),
        ("images", {"height": 4.5}, "height or width"),
        ("images", {"height": NAN}, "height or width"),
        ("images", {"file_name": " "}, r"images\[0\] has a file_name that is no text"),
        ("images", {"file_name": "a\nb"}, "file_name that is no text"),
        ("categories", {"id": "a"}, r"categories\[0\] has id 'a', which is no whole number"),
        ("categories", {"name": None}, r"categories\[0\] has a name that is no text"),
        ("categories", {"name": "cat"}, "several categories are named 'cat': give each its own"),
        ("annotations", {"area": "big"}, "annotation 0 has area 'big', which is no number"),
        ("annotations", {"iscrowd": 2}, "annotation 0 has iscrowd 2, which is neither 0 nor 1"),
        ("annotations", {"ignore": 1}, "annotation 0 has ignore set, which is not supported"),
        (
            "annotations",
            {"segmentation": [1, 2]},
            "annotation 0 has a segmentation that is neither",
        ),
        ("annotations", {"segmentation": {"counts": [1]}}, "annotation 0 has a segmentation"),
        ("annotations", {"bbox": [10**400, 1, 2, 3]}, r"bbox \[1000.*\.\.\., not four numbers"),
        ("annotations", {"bbox": [True, 1, 2, 3]}, "not four numbers"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(key, edit, message):
    file = content()
    if key != "annotations" and "id" in edit:
        file["annotations"] = []
    file[key][0].update(edit)
    with pytest.raises(ValueError, match=message) as error:
        checked(file, "a.json")
    assert str(error.value).startswith("a.json: ") and "\n" not in str(error.value)


def test_results_keep_the_ids_of_the_file(tmp_path):
    file = content()
    for entry in [*file["images"], *file["annotations"]]:
        key = "image_id" if "image_id" in entry else "id"
        entry[key] = -entry[key]
    name = write(tmp_path, file)
    evaluator = build_coco_evaluator(name, output_dir=str(tmp_path / "out"), distributed=False)
    evaluator.reset()
    from detectron2.structures import Boxes, Instances

    found = Instances((48, 64))
    found.pred_boxes = Boxes(torch.tensor([[2.0, 3.0, 22.0, 13.0]]))
    found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([1])
    evaluator.process([{"image_id": -2}], [{"instances": found}])
    evaluator.evaluate()
    (result,) = json.loads((tmp_path / "out/coco_instances_results.json").read_text())
    assert result["image_id"] == -2 and result["category_id"] == 7
    assert np.allclose(result["bbox"], [2, 3, 20, 10])


def test_a_byte_order_mark_is_read(tmp_path):
    name = write(tmp_path, content())
    path = tmp_path / "a.json"
    path.write_text(path.read_text(), "utf-8-sig")
    assert own_ground_truth(name)[0]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("outside", ["../out.png", "{tmp}/out.png"])
def test_images_outside_the_folder_are_refused_unless_allowed(tmp_path, dataset_name, outside):
    root = tmp_path / "data"
    root.mkdir()
    Image.new("RGB", SIZE).save(tmp_path / "out.png")
    file = content()
    name = write(root, file)
    file["images"][1]["file_name"] = outside.format(tmp=tmp_path)
    (root / "a.json").write_text(json.dumps(file))
    register_coco(dataset_name, name, root)
    for dataset in (name, dataset_name):
        with pytest.raises(ValueError, match=r"out\.png is outside the image folder .*/data/: cor"):
            get_dataset_dicts(dataset, filter_empty=False)
        assert len(get_dataset_dicts(dataset, filter_empty=False, outside_root=True)) == 2
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
