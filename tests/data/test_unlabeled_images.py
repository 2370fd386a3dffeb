"""Images without labels: their records, and batches that have both kinds."""

from __future__ import annotations

import itertools
import random

import pytest
from detectron2.utils import comm

from labeled_folders import write_coco, write_image
from lad.data import build_train_loader, get_dataset_dicts, register_coco, unlabeled_images
from lad.data.loader import Unlabeled
from lad.data.unlabeled import read_unlabeled


class RandomMapper:
    """Draws as augmentations do."""

    def __call__(self, record):
        return {"id": record["id"], "draw": random.random()}


def records(number, first=0):
    return [{"id": first + i, "width": 10 + i % 2, "height": 10} for i in range(number)]


def batches(count, start=0, *, ratio=0.5, number=5, **options):
    unlabeled = None if ratio is None else Unlabeled(records(number, 100), ratio)
    loader = build_train_loader(
        dataset=records(10),
        mapper=RandomMapper(),
        seed=3,
        unlabeled=unlabeled,
        **{"total_batch_size": 4, **options},
    )
    loader.set_start(start)
    return list(itertools.islice(loader, count))


def test_the_labeled_images_are_those_of_a_training_without():
    mixed = batches(8)
    assert [batch[:4] for batch in mixed] == batches(8, ratio=None)
    others = [x["id"] for batch in mixed for x in batch[4:]]
    assert all(len(batch) == 6 for batch in mixed)
    assert set(others) == set(range(100, 105)), "an epoch of its own"
    draws = [x["draw"] for batch in mixed for x in batch]
    assert len(set(draws)) == len(draws), "with augmentations of their own"


def test_start_continues_the_stream():
    assert batches(4, start=3) == batches(7)[3:]


def test_workers_and_processes_change_nothing(monkeypatch):
    alone = batches(4)
    assert batches(4, num_workers=1) == alone
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    ranks = []
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        ranks.append(batches(4))
    for whole, first, second in zip(alone, *ranks, strict=True):
        assert whole == first[:2] + second[:2] + first[2:] + second[2:]


@pytest.mark.parametrize(("ratio", "number"), [(2.0, 8), (0.25, 1), (0.3, 1)])
def test_ratio_is_of_the_labeled_images(ratio, number):
    assert len(batches(1, ratio=ratio)[0]) == 4 + number


def test_a_ratio_of_no_whole_image_is_an_error(monkeypatch):
    with pytest.raises(ValueError, match=r"unlabeled.ratio=0.1: 0 images per batch of 4"):
        batches(1, ratio=0.1)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"unlabeled.ratio=0.75: 3 images .* among 2 processes"):
        batches(1, ratio=0.75)


@pytest.fixture
def dataset(tmp_path, dataset_name):
    images = {f"{i}.jpg": [(1, (4, 4, 20, 20))] * (i % 2) for i in range(5)}
    write_coco(tmp_path / "a.json", tmp_path, images, {1: "cat"})
    register_coco(dataset_name, tmp_path / "a.json", tmp_path)
    return dataset_name


def test_records_have_no_labels(dataset):
    found = unlabeled_images(dataset, ratio=2.0)
    assert found.ratio == 2.0 and len(found.records) == 5
    assert all(x["unlabeled"] and "annotations" not in x for x in found.records)
    assert {"file_name", "width", "height"} <= found.records[0].keys()


def test_parts_of_a_dataset_complement_each_other(dataset):
    def ids(found):
        return [x["image_id"] for x in found]

    labeled = get_dataset_dicts(dataset, filter_empty=False, part=[0, 2])
    assert ids(labeled) == [0, 2, 4]
    assert ids(unlabeled_images(dataset, part=[1, 2]).records) == [1, 3]
    assert ids(get_dataset_dicts(dataset, part=[1, 2])) == [1, 3]
    for part in ([2, 2], [0], [0, 1, 2], [-1, 2], [0, 0.5]):
        with pytest.raises(ValueError, match=r"dataset.part=.*: give \[first, step\]"):
            get_dataset_dicts(dataset, part=part)


def test_no_images_are_asked_for(dataset):
    assert unlabeled_images() is None
    assert unlabeled_images([]) is None
    assert unlabeled_images(dataset, ratio=0) is None
    with pytest.raises(ValueError, match="unlabeled.ratio=-1: it has to be 0 or more"):
        unlabeled_images(dataset, ratio=-1)


def test_a_folder_of_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are no images in it"):
        read_unlabeled(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        read_unlabeled(tmp_path / "nowhere")
    write_image(tmp_path / "deep er/b#1.jpg", (40, 30))
    write_image(tmp_path / "a.png", (20, 30))
    found = read_unlabeled(tmp_path)
    assert [(x.path.name, x.width, x.height) for x in found] == [
        ("a.png", 20, 30),
        ("b#1.jpg", 40, 30),
    ]
    (tmp_path / "c.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="c.jpg: cannot be read as an image"):
        read_unlabeled(tmp_path)
