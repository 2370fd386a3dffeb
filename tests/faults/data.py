"""Faults of annotation files and images."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from faults.case import Case, Lost, Outcome, call, refused
from ground_truth import own_ground_truth
from lad.cli.check_dataset import main as check_data
from lad.data.images import read_image
from lad.engine.config import user_errors
from lad.engine.run import main as train

NAN, INF = math.nan, math.inf
SIZE = (64, 48)
BOXES = [
    (1, 1, [2, 3, 20, 10]), (1, 2, [30, 5, 10, 30]), (1, 1, [5, 20, 9, 9]),
    (2, 1, [5, 5, 40, 40]), (2, 2, [1, 1, 5, 5]),
]  # fmt: skip
TINY = Path(__file__).parents[1] / "engine/folder_config.py"
Edit = Callable[[dict], Any]


def content(number: int = 2) -> dict:
    """A file of images of 64x48 and five objects of two classes, whose ids start at 0."""
    images = [
        {"id": i, "file_name": f"{i}.png", "width": SIZE[0], "height": SIZE[1]}
        for i in range(1, number + 1)
    ]
    annotations = [
        {"id": i, "image_id": image, "category_id": label, "bbox": list(box)}
        for i, (image, label, box) in enumerate(BOXES)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(folder: Path, file: object, number: int = 2) -> Path:
    """Writes a file with its images; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(1, number + 1):
        Image.new("RGB", SIZE, (40 * i % 256, 90, 30)).save(folder / f"{i}.png")
    (folder / "a.json").write_text(json.dumps(file))
    return folder / "a.json"


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluates the own ground truth of a file; prints its AP and its number of objects."""
    with user_errors():
        results, records = own_ground_truth(arguments[0])
        print(f"AP={results['AP']:.3f} objects={sum(len(x['annotations']) for x in records)}")
    return 0


def annotation_fault(folder: Path, edit: Edit, expected: int | Sequence[str]) -> Outcome:
    """Evaluates an edited file; expects a number of objects, or words of the refusal."""
    file = content()
    changed = edit(file)
    path = write(folder, file if changed is None else changed)
    printed = call(evaluate, [path])
    if not isinstance(expected, int):
        return refused(printed, str(path), *expected)
    assert not printed.status, printed.text
    countable = [x for x in file["annotations"] if not x.get("iscrowd")]
    ap = "100.000" if countable else "nan"
    assert f"AP={ap} objects={expected}" in printed.text, printed.text[-300:]
    return Outcome.CORRECT


def numbered(key: str, change: Callable[[int], Any]) -> Edit:
    """Changes the ids of a list, and those that refer to it."""

    def edit(file: dict) -> None:
        for entry in file[key]:
            entry["id"] = change(entry["id"])
        reference = {"images": "image_id", "categories": "category_id"}.get(key)
        for entry in file["annotations"] if reference else ():
            entry[reference] = change(entry[reference])

    return edit


def first(key: str, **values: Any) -> Edit:
    """Changes the first entry of a list; a value of ... removes its key."""

    def edit(file: dict) -> None:
        entry = file[key][0]
        entry.update(values)
        for name in [name for name, value in values.items() if value is ...]:
            del entry[name]

    return edit


def repeated(key: str, **values: Any) -> Edit:
    """Adds a copy of the first entry of a list, with some other values."""
    return lambda file: file[key].append({**file[key][0], **values})


ANNOTATIONS: dict[str, tuple[Edit, int | Sequence[str]]] = {
    "ids from 0": (lambda f: None, 5),
    "ids as text": (numbered("annotations", str), 5),
    "ids as words": (numbered("annotations", lambda i: f"box {i}"), 5),
    "negative ids": (numbered("annotations", lambda i: -i - 1), 5),
    "ids beyond 2^53": (numbered("annotations", lambda i: 2**53 + i), 5),
    "ids beyond 2^62": (numbered("annotations", lambda i: 2**62 + i), 5),
    "ids beyond 2^64": (numbered("annotations", lambda i: 2**64 + i), 5),
    "fractional ids": (numbered("annotations", lambda i: i + 0.5), ("id 0.5",)),
    "true as an id": (first("annotations", id=True), ("id True",)),
    "null as an id": (first("annotations", id=None), ("id None",)),
    "no id": (first("annotations", id=...), ("annotations[0]", "'id'")),
    "two objects with one id": (repeated("annotations"), ("annotations[5]", "id 0")),
    "image ids as text": (numbered("images", str), ("images[0]", "number the entries")),
    "image ids as words": (numbered("images", lambda i: f"i{i}"), ("images[0]", "'i1'")),
    "image ids from 0": (numbered("images", lambda i: i - 1), 5),
    "negative image ids": (numbered("images", lambda i: -i), 5),
    "large image ids": (numbered("images", lambda i: 2**52 + i), 5),
    "image ids beyond 2^62": (numbered("images", lambda i: 2**62 + i), ("images[0]",)),
    "fractional image ids": (numbered("images", lambda i: i / 2), ("images[0]", "0.5")),
    "two images with one id": (repeated("images"), ("images[2]", "id 1")),
    "category ids as text": (numbered("categories", str), ("categories[0]",)),
    "category ids from 0": (numbered("categories", lambda i: i - 1), 5),
    "negative category ids": (numbered("categories", lambda i: -i), 5),
    "category ids with gaps": (numbered("categories", lambda i: 1000 * i), 5),
    "two categories with one id": (repeated("categories", name="x"), ("categories[2]", "id 1")),
    "two categories with one name": (repeated("categories", id=3), ("named 'cat'",)),
    "a category without a name": (first("categories", name=None), ("categories[0]", "name")),
    "a number as a category's name": (first("categories", name=7), 5),
    "an unknown image": (first("annotations", image_id=9), ("annotation 0", "image_id 9")),
    "an unknown category": (first("annotations", category_id=9), ("category_id 9",)),
    "image id of another type": (first("annotations", image_id="1"), ("image_id '1'",)),
    "a box with NaN": (first("annotations", bbox=[NAN, 1, 5, 5]), 4),
    "a box of NaN width": (first("annotations", bbox=[1, 1, NAN, 5]), 4),
    "a box of infinite width": (first("annotations", bbox=[1, 1, INF, 5]), 4),
    "a box that starts at -infinity": (first("annotations", bbox=[-INF, 1, INF, 5]), 4),
    "a box without width": (first("annotations", bbox=[1, 1, 0, 5]), 4),
    "a box of negative height": (first("annotations", bbox=[9, 9, 5, -5]), 4),
    "a box right of the image": (first("annotations", bbox=[64, 1, 5, 5]), 4),
    "a box above the image": (first("annotations", bbox=[1, -9, 5, 9]), 4),
    "a box partly outside": (first("annotations", bbox=[50, 30, 40, 40]), 5),
    "a box around the image": (first("annotations", bbox=[-9, -9, 100, 100]), 5),
    "a box that overflows": (first("annotations", bbox=[1e308, 1, 1e308, 5]), 4),
    "a box of three numbers": (first("annotations", bbox=[1, 2, 3]), ("bbox [1, 2, 3]",)),
    "a box of texts": (first("annotations", bbox=["1", 1, 5, 5]), ("four numbers",)),
    "a box of 400 digits": (first("annotations", bbox=[10**400, 1, 5, 5]), ("four numbers",)),
    "null as a box": (first("annotations", bbox=None), ("four numbers",)),
    "a box as a dict": (first("annotations", bbox={"x": 1}), ("four numbers",)),
    "a negative area": (first("annotations", area=-5), 5),
    "an area of NaN": (first("annotations", area=NAN), 5),
    "null as an area": (first("annotations", area=None), 5),
    "a text as an area": (first("annotations", area="big"), ("annotation 0", "area 'big'")),
    "null as iscrowd": (first("annotations", iscrowd=None), 5),
    "a crowd": (first("annotations", iscrowd=1), 5),
    "2 as iscrowd": (first("annotations", iscrowd=2), ("iscrowd 2",)),
    "an ignored object": (first("annotations", ignore=1), ("ignore",)),
    "a polygon of two points": (first("annotations", segmentation=[[1, 2, 3, 4]]), 4),
    "a flat polygon": (first("annotations", segmentation=[1, 2, 3, 4, 5, 6]), ("segmentation",)),
    "a text as a mask": (first("annotations", segmentation="x"), ("segmentation",)),
    "no annotations": (lambda f: f.update(annotations=[]), 0),
    "only crowds": (lambda f: [x.update(iscrowd=1) for x in f["annotations"]] and None, 5),
    "no images": (lambda f: f.update(images=[]), ("empty list 'images'",)),
    "no categories": (lambda f: f.pop("categories") and None, ("no list 'categories'",)),
    "a list as the file": (lambda f: f["annotations"], ("no COCO annotations",)),
    "a height of 0": (first("images", height=0), ("images[0]", "height")),
    "a width as text": (first("images", width="64"), ("images[0]", "width")),
    "a fractional height": (first("images", height=47.5), ("images[0]", "height")),
    "a width of 64.0": (first("images", width=64.0), 5),
    "a number as a file name": (first("images", file_name=1), ("images[0]", "file_name")),
    "an empty file name": (first("images", file_name=""), ("images[0]", "file_name")),
    "a file name of two lines": (first("images", file_name="a\nb"), ("images[0]", "file_name")),
    "a missing image": (first("images", file_name="none.png"), ("none.png",)),
    "an image above the folder": (first("images", file_name="../1.png"), ("outside",)),
    "an absolute file name": (first("images", file_name="/etc/1.png"), ("outside",)),
    "an image that is a word": (lambda f: f["images"].append("x"), ("images[2]",)),
}  # fmt: skip


def bytes_fault(folder: Path, data: bytes, *words: str) -> Outcome:
    """Reads an annotation file of these bytes."""
    path = write(folder, content())
    path.write_bytes(data)
    printed = call(evaluate, [path])
    if words:
        return refused(printed, str(path), *words)
    assert "AP=100.000 objects=5" in printed.text, printed.text
    return Outcome.CORRECT


BYTES: dict[str, tuple[bytes, Sequence[str]]] = {
    "an empty file": (b"", ("not a json file",)),
    "a truncated file": (json.dumps(content()).encode()[:200], ("not a json file",)),
    "a file of zeros": (bytes(64), ("not a json file",)),
    "Latin-1": (b'{"images": "\xe9"}', ("not a json file",)),
    "10,000 open brackets": (b"[" * 10_000, ("not a json file",)),
    "a byte order mark": (json.dumps(content()).encode("utf-8-sig"), ()),
    "UTF-16": (json.dumps(content()).encode("utf-16"), ()),
}

COLORS = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
GRAY = (np.arange(48 * 64, dtype=np.uint16) * 21).reshape(48, 64)


def pixels_fault(
    folder: Path, make: Callable[[], Image.Image], expected: Any, name: str
) -> Outcome:
    """Writes an image of an unusual kind; expects (H, W) or (H, W, 3) pixels, or a refusal."""
    image = make()
    options = {"exif": image.info["exif"]} if "exif" in image.info else {}
    image.save(folder / name, **options)

    def read(_arguments: Sequence[str]) -> int:
        with user_errors():
            found.append(read_image(str(folder / name), "RGB"))
        return 0

    found: list[np.ndarray] = []
    printed = call(read, [])
    if expected is None:
        return refused(printed, name, "8 bits per channel")
    assert not printed.status, printed.text
    right = np.asarray(expected)
    right = right if right.ndim == 3 else np.repeat(right[..., None], 3, axis=2)
    assert np.array_equal(found[0], right), f"wrong pixels: {found[0][0, :3]} for {right[0, :3]}"
    return Outcome.CORRECT


def turned() -> Image.Image:
    """A 16-bit image that is to be turned by 90 degrees."""
    image = Image.fromarray(GRAY)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes()
    return image


INVERTED = 255 - COLORS
PIXELS: dict[str, tuple[Callable[[], Image.Image], Any, str]] = {
    "16-bit PNG": (lambda: Image.fromarray(GRAY), GRAY >> 8, "a.png"),
    "16-bit TIFF": (lambda: Image.fromarray(GRAY), GRAY >> 8, "a.tif"),
    "16-bit PGM": (lambda: Image.fromarray(GRAY.astype(np.int32)), GRAY >> 8, "a.pgm"),
    "float TIFF": (lambda: Image.fromarray(GRAY.astype(np.float32)), None, "a.tif"),
    "32-bit TIFF": (lambda: Image.fromarray(GRAY.astype(np.int32)), None, "a.tif"),
    "grayscale PNG": (lambda: Image.fromarray(COLORS[..., 0]), COLORS[..., 0], "a.png"),
    "grayscale with transparency": (
        lambda: Image.merge("LA", [Image.fromarray(COLORS[..., i]) for i in (0, 1)]),
        COLORS[..., 0],
        "a.png",
    ),
    "1-bit PNG": (
        lambda: Image.fromarray(COLORS[..., 0] > 99), (COLORS[..., 0] > 99) * np.uint8(255), "a.png"
    ),
    "PNG with transparency": (
        lambda: Image.fromarray(np.dstack([COLORS, COLORS[..., 0]])), COLORS, "a.png"
    ),
    "CMYK TIFF": (
        lambda: Image.fromarray(np.dstack([COLORS, COLORS[..., 0] * 0]), "CMYK"), INVERTED, "a.tif"
    ),
    "turned 16-bit PNG": (turned, np.rot90(GRAY >> 8, -1), "a.png"),
}  # fmt: skip


def break_image(path: Path, kind: str) -> None:
    """Replaces an image by one that cannot be used."""
    whole = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a broken link":
        path.symlink_to(path.parent / "nowhere.png")
    elif kind == "an empty file":
        path.write_bytes(b"")
    elif kind == "HTML":
        path.write_text("<html>404 not found</html>")
    elif kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "of another size":
        Image.new("RGB", (48, 48)).save(path)
    elif kind == "turned by EXIF data":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", SIZE).save(path, exif=exif)
    elif kind == "of 196 megapixels":
        Image.new("1", (14_000, 14_000)).save(path)
    elif kind == "of floats":
        Image.new("F", SIZE).save(path, "TIFF")


KINDS = (
    *("a folder", "a broken link", "an empty file", "HTML", "truncated", "of another size"),
    *("turned by EXIF data", "of 196 megapixels", "of floats"),
)


def checked(folder: Path, kind: str) -> Outcome:
    """A broken image in a folder that is checked before it is trained on."""
    data, number = folder / "data", 10
    path = write(data / "images", content(number), number)
    (data / "annotations").mkdir()
    path.rename(data / "annotations/train.json")
    break_image(data / "images/1.png", kind)
    printed = call(check_data, [data])
    assert printed.status == 1, printed.text
    assert "Traceback" not in printed.text, printed.text
    problems = printed.text.partition("What training refuses (1):")[2].strip().splitlines()
    assert len(problems) == 1 and "1.png" in problems[0], printed.text
    return Outcome.ONE_LINE


def training(folder: Path, *options: str) -> list[str | Path]:
    """The arguments of a short training on ``folder/train`` and ``folder/val``."""
    return [
        *("--config-file", TINY, f"train.output_dir={folder / 'run'}", "train.max_iter=4"),
        *(f"dataloader.train.dataset.names={folder}/train/a.json", "model.head.num_classes=2"),
        *(f"dataloader.test.dataset.names={folder}/val/a.json", "train.eval_period=0"),
        *("dataloader.train.total_batch_size=2", "train.checkpointer.period=2", "train.seed=3"),
        *options,
    ]


def splits(folder: Path) -> None:
    """Writes 6 training images and 2 for validation."""
    write(folder / "train", content(6), 6)
    write(folder / "val", content())


def trained(folder: Path, kind: str) -> Outcome:
    """A broken training image: named, replaced, and the same after a kill and with workers."""
    import torch

    splits(folder)
    break_image(folder / "train/1.png", kind)
    printed = call(train, training(folder))
    if printed.status or "Unreadable, another image is taken instead" not in printed.text:
        raise Lost(printed.text[-3000:])
    whole = torch.load(folder / "run/model_final.pth", weights_only=True)["model"]
    (folder / "run/last_checkpoint").write_text("model_0000001.pth")
    printed = call(train, [*training(folder, "dataloader.train.num_workers=1"), "--resume"])
    if printed.status:
        raise Lost(printed.text[-3000:])
    resumed = torch.load(folder / "run/model_final.pth", weights_only=True)["model"]
    different = [key for key in whole if not torch.equal(whole[key], resumed[key])]
    assert not different, f"a resumed run differs in {different[:3]}"
    return Outcome.CORRECT


def too_many(folder: Path) -> Outcome:
    """Three of six images are broken: one line, and the state of the step is saved."""
    splits(folder)
    for i in (1, 2, 3):
        break_image(folder / f"train/{i}.png", "truncated")
    outcome = refused(call(train, training(folder)), "of 6 training images", "max_unreadable")
    if not list((folder / "run").glob("model_*.pth")):
        raise Lost("no checkpoint was saved")
    return outcome


def broken_test_image(folder: Path, kind: str) -> Outcome:
    """A broken validation image is refused, before the training if its header shows it."""
    splits(folder)
    break_image(folder / "val/2.png", kind)
    outcome = refused(call(train, training(folder)), "val/2.png")
    if kind == "truncated" and not (folder / "run/model_final.pth").is_file():
        raise Lost("the trained weights were not saved")
    return outcome


def other_classes(folder: Path, categories: list[dict], *words: str) -> Outcome:
    """Validation has other classes than training, or in another order."""
    splits(folder)
    file = copy.deepcopy(content())
    file["categories"] = categories
    (folder / "val/a.json").write_text(json.dumps(file))
    for name in (f"{folder}/train/a.json", f"{folder}/val/a.json"):
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog.list():
                catalog.remove(name)
    outcome = refused(call(train, training(folder)), "val/a.json", *words)
    if (folder / "run").exists():
        shutil.rmtree(folder / "run")
        raise AssertionError("a refused start has left a folder")
    return outcome


SWAPPED = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
OTHER = [{"id": 1, "name": "cat"}, {"id": 2, "name": "horse"}]
THREE = [*content()["categories"], {"id": 3, "name": "cow"}]


def _case(name: str, function: Callable[..., Outcome], *values: Any, quick: bool = True) -> Case:
    return Case("data", name, lambda folder: function(folder, *values), quick)


CASES = [
    *(_case(f"annotations: {name}", annotation_fault, *x) for name, x in ANNOTATIONS.items()),
    *(_case(f"annotations: {k}", bytes_fault, x, *words) for k, (x, words) in BYTES.items()),
    *(_case(f"image: {name}", pixels_fault, *x) for name, x in PIXELS.items()),
    *(_case(f"check-data: an image is {kind}", checked, kind) for kind in KINDS),
    *(
        _case(f"training: an image is {kind}", trained, kind, quick=kind == "truncated")
        for kind in KINDS
    ),
    _case("training: too many images are unreadable", too_many),
    *(
        _case(f"evaluation: an image is {k}", broken_test_image, k, quick=k in KINDS[4:6])
        for k in KINDS
    ),
    _case("classes of validation in another order", other_classes, SWAPPED, "'dog'", "'cat'"),
    _case("another class in validation", other_classes, OTHER, "'horse'", "'dog'"),
    _case("one more class in validation", other_classes, THREE, "3 classes"),
]
