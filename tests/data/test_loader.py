import itertools
import random
import re

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from PIL import Image

from lad.data.images import ImageMapper, UnreadableImage
from lad.data.loader import (
    SeededBatchSampler,
    SeededMapDataset,
    Unlabeled,
    build_evaluation_loader,
    build_train_loader,
)


def make_sampler(groups=(0,) * 10, total_batch_size=4, seed=0, **kwargs):
    return SeededBatchSampler(groups=groups, total_batch_size=total_batch_size, seed=seed, **kwargs)


def take(iterable, count):
    return list(itertools.islice(iterable, count))


def images(batches):
    return [[image for image, _ in batch] for batch in batches]


class RandomMapper:
    """Draws from all three global generators, as augmentations may."""

    def __call__(self, record):
        draws = (random.random(), np.random.rand(), torch.rand(()).item())
        return {"id": record["id"], "draws": draws}


def make_loader(num_images=12, **kwargs):
    dataset = [{"id": i, "width": 10 + i % 2, "height": 10} for i in range(num_images)]
    return build_train_loader(
        **{"dataset": dataset, "mapper": RandomMapper(), "total_batch_size": 4, "seed": 3, **kwargs}
    )


def test_golden_order():
    first = take(make_sampler(groups=[0] * 5, total_batch_size=2, seed=1), 3)
    assert images(first) == [[1, 2], [4, 0], [3, 4]]  # image 4 fills the last batch up
    assert first[0] == [(1, 1835504127), (2, 1189033389)]


def test_epoch_holds_every_image_once_and_a_batch_is_filled_up():
    batches = images(take(make_sampler(), 6))  # 10 images in batches of 4: epochs of 3 batches
    for epoch in (batches[:3], batches[3:]):
        counts = np.bincount(np.concatenate(epoch), minlength=10)
        assert counts.sum() == 12 and counts.min() == 1 and counts.max() == 2
    assert batches[:3] != batches[3:]


def test_epochs_of_coco_are_as_long_as_in_the_schedules():
    sampler = make_sampler(groups=np.arange(117_266) % 2, total_batch_size=16)
    assert sampler.epoch_batches(0).shape == (7330, 16)


def test_groups_share_batches_but_for_one_mixed_batch():
    groups = np.array([0, 1, 1] * 7)  # 7 and 14 images: batches of 4 leave 3 and 2
    batches = make_sampler(groups=groups).epoch_batches(0)
    assert sorted(set(batches.ravel())) == list(range(21))
    assert sum(len(set(groups[batch])) == 2 for batch in batches) <= 2


def test_ranks_take_slices_of_the_same_batches():
    whole = take(make_sampler(total_batch_size=6), 7)
    ranks = [take(make_sampler(total_batch_size=6, rank=r, world_size=3), 7) for r in range(3)]
    assert [sum(parts, []) for parts in zip(*ranks, strict=True)] == whole


@pytest.mark.parametrize("start", [1, 3, 8])
def test_start_continues_the_stream(start):
    stream = take(make_sampler(), 12)
    resumed = make_sampler()
    resumed.set_start(start)
    assert take(resumed, 12 - start) == stream[start:]


def test_seed_determines_order_and_augmentation():
    assert take(make_sampler(seed=1), 5) == take(make_sampler(seed=1), 5)
    assert take(make_sampler(seed=1), 5) != take(make_sampler(seed=2), 5)
    seeds = [seed for batch in take(make_sampler(), 20) for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


def test_fewer_images_than_a_batch_are_repeated():
    batches = images(take(make_sampler(groups=[0, 1, 0], total_batch_size=8), 4))
    for batch in batches:
        assert len(batch) == 8 and set(batch) == {0, 1, 2}


def test_empty_dataset_is_an_error():
    with pytest.raises(ValueError, match="the training dataset is empty"):
        make_loader(num_images=0)


@pytest.mark.parametrize("total_batch_size", [0, 3])
def test_indivisible_batch_is_an_error(total_batch_size):
    with pytest.raises(ValueError, match=rf"total_batch_size={total_batch_size} .* 2 processes"):
        make_sampler(total_batch_size=total_batch_size, world_size=2)


def test_negative_start_is_an_error():
    with pytest.raises(ValueError, match="batch_index=-1"):
        make_sampler().set_start(-1)


def test_mapper_draws_follow_the_seed_and_leave_the_global_state_alone():
    dataset = SeededMapDataset([{"id": 0}], RandomMapper())
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = RandomMapper()({"id": 0})
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    first = dataset[0, 11]
    assert RandomMapper()({"id": 0}) == expected
    assert dataset[0, 11] == first != dataset[0, 12]


def test_global_state_is_restored_when_the_mapper_fails():
    def failing(record):
        random.random()
        raise OSError("unreadable image")

    state = random.getstate()
    with pytest.raises(OSError, match="unreadable image"):
        SeededMapDataset([{}], failing)[0, 1]
    assert random.getstate() == state


def test_workers_change_nothing():
    alone, shared = (take(make_loader(num_workers=n), 5) for n in (0, 2))
    assert alone == shared


def test_iterating_leaves_torch_state_alone():
    state = torch.get_rng_state()
    take(make_loader(num_workers=1), 2)
    take(make_loader(num_workers=0), 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_loader_continues_from_start():
    stream = take(make_loader(), 6)
    resumed = make_loader()
    resumed.set_start(4)
    assert take(resumed, 2) == stream[4:]


def test_two_processes_see_what_one_sees(monkeypatch):
    alone = take(make_loader(), 4)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    ranks = []
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        ranks.append(take(make_loader(), 4))
    assert [a + b for a, b in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("seed", [None, -1])
def test_without_a_seed_the_order_is_random(seed):
    np.random.seed(0)
    first = take(make_loader(seed=seed), 5)
    assert take(make_loader(seed=seed), 5) != first


def test_grouping_needs_image_sizes():
    with pytest.raises(ValueError, match=r"image a\.png has no 'width' and 'height'"):
        make_loader(dataset=[{"file_name": "a.png"}])
    loader = make_loader(dataset=[{"id": 7}], aspect_ratio_grouping=False)
    assert [element["id"] for element in next(iter(loader))] == [7] * 4


class SomeUnreadable:
    """As `RandomMapper`, but the images of some numbers cannot be read."""

    def __init__(self, *ids):
        self.ids = ids

    def __call__(self, record):
        if record["id"] in self.ids:
            raise UnreadableImage(f"{record['file_name']}: bad")
        return {**RandomMapper()(record), "unlabeled": record.get("unlabeled", False)}


def damaged_loader(*ids, num_images=12, **options):
    dataset = [
        {"id": i, "file_name": f"{i}.png", "width": 10, "height": 10} for i in range(num_images)
    ]
    return make_loader(dataset=dataset, mapper=SomeUnreadable(*ids), **options)


def test_an_unreadable_image_is_replaced_and_named_once(caplog):
    whole, damaged = take(damaged_loader(), 9), damaged_loader(5)
    found = take(damaged, 9)
    for before, after in zip(sum(whole, []), sum(found, []), strict=True):
        assert after == before or before["id"] == 5 != after["id"]
        assert "unreadable" not in after
    assert damaged.unreadable == {"5.png": "5.png: bad"}
    assert caplog.text.count("Unreadable, another image is taken instead: 5.png: bad") == 1
    assert damaged.refusal() == ""


def test_replacements_depend_on_the_seed_and_the_position_alone():
    stream = take(damaged_loader(5, 7), 9)
    assert take(damaged_loader(5, 7, num_workers=2), 9) == stream
    resumed = damaged_loader(5, 7)
    resumed.set_start(4)
    assert take(resumed, 5) == stream[4:]


def test_unlabeled_images_are_replaced_by_unlabeled_ones():
    records = [{"id": 20 + i, "file_name": f"u{i}.png", "unlabeled": True} for i in range(3)]
    loader = damaged_loader(1, 20, unlabeled=Unlabeled(records, 1.0))
    for batch in take(loader, 9):
        assert [x["unlabeled"] for x in batch] == [False] * 4 + [True] * 4
        assert {1, 20}.isdisjoint(x["id"] for x in batch)


def test_too_many_unreadable_images_are_refused():
    loader = damaged_loader(1, 2, 3, max_unreadable=0.2)
    take(loader, 3)
    assert re.match(
        r"3 of 12 training images cannot be read, more than dataloader\.train\.max_unreadable=0\.2;"
        r" the first is \d\.png: bad",
        loader.refusal(),
    )
    loader = damaged_loader(1, 2, 3, max_unreadable=0.25)
    take(loader, 3)
    assert loader.refusal() == ""
    with pytest.raises(UnreadableImage, match="bad"):
        take(damaged_loader(*range(12)), 1)
    with pytest.raises(ValueError, match=r"max_unreadable=1\.5: it has to be"):
        damaged_loader(max_unreadable=1.5)


def test_test_images_are_looked_at_before_an_evaluation(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    mapper = ImageMapper(False, augmentations=[], image_format="RGB")
    record = {"file_name": str(tmp_path / "a.png"), "width": 8, "height": 6}
    loader = build_evaluation_loader(dataset=[record], mapper=mapper)
    assert next(iter(loader))[0]["image"].shape == (3, 6, 8)
    for wrong in ({"width": 6}, {"file_name": str(tmp_path / "b.png")}):
        with pytest.raises(UnreadableImage, match=r"\.png: "):
            build_evaluation_loader(dataset=[record, record | wrong], mapper=mapper)
