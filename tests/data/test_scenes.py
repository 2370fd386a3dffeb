import numpy as np
import pytest

from lad.data.scenes import Scene, load_sources, make_scene

NUM_SCENES = 60


@pytest.fixture(scope="module")
def sources():
    return {split: load_sources(split) for split in ("train", "val")}


@pytest.fixture(scope="module")
def scenes(sources) -> list[Scene]:
    return [
        make_scene(sources["train"], "train", i, image_size=160, seed=0) for i in range(NUM_SCENES)
    ]


def test_golden_scene(sources):
    scene = make_scene(sources["val"], "val", 5, image_size=96, seed=0)
    assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
    assert scene.boxes.tolist() == [[52, 9, 26, 52], [7, 9, 38, 54]]
    assert scene.classes.tolist() == [1, 0]
    # The photos come from JPEG files, so decoders may differ by a gray level.
    assert scene.image.mean() == pytest.approx(84.36, abs=0.5)


def test_empty_scene(sources):
    scene = make_scene(sources["val"], "val", 4, image_size=96, seed=0)
    assert scene.boxes.shape == (0, 4) and scene.classes.shape == (0,)


def test_splits_share_neither_scans_nor_photo_regions(sources):
    train, val = sources["train"], sources["val"]
    assert not set(train.scan_indices) & set(val.scan_indices)
    assert len(train.scan_indices) + len(val.scan_indices) == 1797
    for left, right in zip(train.photos, val.photos, strict=True):
        assert left.shape[1] + right.shape[1] == 640


def test_scene_depends_on_seed_split_and_index_alone(sources, scenes):
    again = make_scene(sources["train"], "train", 7, image_size=160, seed=0)
    np.testing.assert_array_equal(again.image, scenes[7].image)
    np.testing.assert_array_equal(again.boxes, scenes[7].boxes)
    for split, index, seed in (("train", 8, 0), ("train", 7, 1), ("val", 7, 0)):
        other = make_scene(sources["train"], split, index, image_size=160, seed=seed)
        assert not np.array_equal(other.image, scenes[7].image)


def test_boxes_lie_inside_the_image_and_overlap_mildly(scenes):
    for scene in scenes:
        x0, y0, w, h = scene.boxes.T
        x1, y1 = x0 + w, y0 + h
        assert len(scene.boxes) <= 10
        assert (scene.boxes[:, 2:] > 0).all() and (scene.boxes[:, :2] >= 0).all()
        assert (x1 <= 160).all() and (y1 <= 160).all()
        widths = np.minimum.outer(x1, x1) - np.maximum.outer(x0, x0)
        heights = np.minimum.outer(y1, y1) - np.maximum.outer(y0, y0)
        shared = widths.clip(0) * heights.clip(0) / np.minimum.outer(w * h, w * h)
        np.fill_diagonal(shared, 0)
        assert (shared <= 0.25).all()


def test_scenes_vary_as_described(scenes):
    counts = np.array([len(scene.boxes) for scene in scenes])
    sides = np.concatenate([scene.boxes[:, 2:].max(axis=1) for scene in scenes])
    classes = np.concatenate([scene.classes for scene in scenes])
    assert (counts == 0).any() and counts.max() >= 9
    assert sides.min() <= 16 and sides.max() >= 90
    assert set(classes) == set(range(10))


def test_boxes_are_tight_and_digits_contrast_with_a_plain_photo(sources):
    gray = sources["train"]._replace(photos=[np.full((200, 200, 3), 120, np.uint8)])
    for index in range(10):
        scene = make_scene(gray, "train", index, image_size=160, seed=0)
        background = np.median(scene.image, axis=(0, 1))
        ink = (np.abs(scene.image - background) > 3).any(axis=2)
        covered = np.zeros((160, 160), bool)
        for x, y, w, h in scene.boxes:
            box = ink[y : y + h, x : x + w]
            assert box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
            covered[max(y - 2, 0) : y + h + 2, max(x - 2, 0) : x + w + 2] = True
        assert not (ink & ~covered).any()  # only soft edges lie outside of the boxes
