import logging

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T

from lad.data import build_train_loader, get_dataset_dicts, register_coco
from lad.data.coco import remedy


@pytest.fixture
def registered(coco_files, dataset_name):
    def register(*args, **kwargs):
        register_coco(dataset_name, *coco_files(*args, **kwargs))
        return dataset_name

    return register


def test_loads_boxes_and_drops_images_without_objects_on_demand(registered):
    name = registered([(20, 10), (10, 20)], [(1, 2, (1, 2, 3, 4))])
    records = get_dataset_dicts([name], filter_empty=False)
    assert [len(record["annotations"]) for record in records] == [1, 0]
    assert records[0]["annotations"][0]["bbox"] == [1, 2, 3, 4]
    assert records[0]["annotations"][0]["category_id"] == 1
    assert [record["image_id"] for record in get_dataset_dicts(name)] == [1]


def test_boxes_without_area_are_dropped_and_counted(registered, caplog):
    boxes = [
        (1, 1, (1, 1, 5, 5)),
        (1, 1, (1, 1, 0, 5)),
        (1, 1, (1, 1, 5, -2)),
        (1, 1, (20, 1, 5, 5)),  # right of the image
        (1, 1, (1, 1, float("nan"), 5)),
        (2, 1, (3, 3, 0, 0)),
    ]
    name = registered([(20, 10), (20, 10)], boxes)
    with caplog.at_level(logging.WARNING):
        records = get_dataset_dicts(name)
    assert [record["image_id"] for record in records] == [1]
    assert [a["bbox"] for a in records[0]["annotations"]] == [[1, 1, 5, 5]]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [w for w in warnings if "area" in w] == [
        f"dataset {name!r}: objects without area inside their image are left out: 5 of 6, the "
        "first is annotation 2"
    ]


def test_no_usable_annotation_is_an_error(registered):
    name = registered([(20, 10)])
    with pytest.raises(ValueError, match=rf"{name} has no image with .*filter_empty=False"):
        get_dataset_dicts(name)
    assert len(get_dataset_dicts(name, filter_empty=False)) == 1


def test_unknown_name_names_the_nearest():
    with pytest.raises(
        ValueError, match="'digits_trian' is not registered: did you mean digits_tr"
    ):
        get_dataset_dicts("digits_trian")
    with pytest.raises(ValueError, match="no dataset is named"):
        get_dataset_dicts([])


def test_missing_images_are_named(registered, tmp_path):
    name = registered([(20, 10)] * 3)
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images do not exist.*images/2\.png"):
        get_dataset_dicts(name, filter_empty=False)


def test_missing_annotation_file_is_named(dataset_name, tmp_path):
    register_coco(dataset_name, tmp_path / "absent.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.json does not exist; put it there or c"):
        get_dataset_dicts(dataset_name)


def test_the_variable_is_named_only_for_files_below_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    assert "DETECTRON2_DATASETS" in remedy(tmp_path / "data/coco/annotations/a.json")
    for path in (tmp_path / "a.json", tmp_path / "database/a.json", "a.json"):
        assert remedy(path) == "put it there or correct the path"
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert "DETECTRON2_DATASETS" in remedy("datasets/a.json")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json does not exist; put it there or c"):
        get_dataset_dicts(str(tmp_path / "nowhere.json"))


def test_augmentation_of_detectron2_follows_the_position(registered):
    """Flip and scale are the same with and without workers, and differ between epochs."""
    name = registered([(40, 20)] * 4, [(i, 1, (2, 3, 8, 9)) for i in range(1, 5)])
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[
            T.ResizeShortestEdge(short_edge_length=(20, 60), max_size=200, sample_style="range"),
            T.RandomFlip(horizontal=True),
        ],
        image_format="RGB",
    )

    def boxes(num_workers):
        stream = iter(
            build_train_loader(
                dataset=get_dataset_dicts(name),
                mapper=mapper,
                total_batch_size=2,
                num_workers=num_workers,
                seed=0,
            )
        )
        batches = [next(stream) for _ in range(6)]
        return torch.cat([x["instances"].gt_boxes.tensor for batch in batches for x in batch])

    alone, worker = boxes(0), boxes(1)
    assert torch.equal(alone, worker)
    assert len(np.unique(alone.numpy(), axis=0)) > 6
