"""Random annotation files: one line, or a dataset whose own ground truth has an AP of 100."""

import json
import math
import tempfile
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ground_truth import own_ground_truth

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "a", "1", "1.png", "../1.png", "/1.png", "a\nb", "é"]),
)
TREES = st.recursive(
    SCALARS,
    lambda x: st.one_of(st.lists(x, max_size=4), st.dictionaries(st.text(max_size=3), x)),
    max_leaves=4,
)
NUMBERS = st.one_of(st.integers(-20, 90), st.floats(-20, 90), st.sampled_from([math.nan, 1e308]))
OBJECTS = st.fixed_dictionaries(
    {
        "id": st.one_of(st.integers(), st.text(max_size=2)),
        "image_id": st.sampled_from([1, -1]),
        "category_id": st.sampled_from([0, 7]),
        "bbox": st.lists(NUMBERS, min_size=4, max_size=4),
    },
    optional={
        "area": NUMBERS,
        "iscrowd": st.sampled_from([0, 1, None, True]),
        "segmentation": st.sampled_from([[], [[1, 2, 3, 4]], [[1, 1, 9, 1, 9, 9]]]),
    },
)
# A key of an entry that is changed to anything, or nothing that is.
CHANGES = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from(["images", "annotations", "categories"]),
        st.integers(0, 2),
        st.sampled_from(["id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore"])
        | st.sampled_from(["segmentation", "file_name", "width", "height", "name"]),
        TREES,
    ),
)


def evaluate(folder: str, text: str) -> tuple[float, list[dict]] | str:
    """Returns the AP and the dataset dicts of a file's own ground truth, or the error line."""
    path = Path(folder) / "a.json"
    path.write_text(text)
    for name in ("1.png", "2.png"):
        if not (path.parent / name).exists():
            Image.new("RGB", (64, 48)).save(path.parent / name)
    for catalog in (DatasetCatalog, MetadataCatalog):
        if str(path) in catalog.list():
            catalog.remove(str(path))
    try:
        results, records = own_ground_truth(str(path))
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return results["AP"], records


def check(text: str) -> None:
    """Fails unless a file is refused in one line, or is consistent."""
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate(folder, text)
    if isinstance(found, str):
        assert "a.json" in found and "\n" not in found
        return
    ap, records = found
    objects = [x for record in records for x in record["annotations"] if not x["iscrowd"]]
    assert all(math.isfinite(x) for entry in objects for x in entry["bbox"])
    # 100 detections of an image count.
    assert math.isnan(ap) if not objects else abs(ap - 100) < 1e-6


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(OBJECTS, max_size=5), CHANGES)
def test_files_near_cocos_format(objects, change):
    images = [
        {"id": i, "file_name": f"{n}.png", "width": 64, "height": 48} for n, i in ((1, 1), (2, -1))
    ]
    categories = [{"id": 7, "name": "cat"}, {"id": 0, "name": "dog"}]
    content = {"images": images, "annotations": objects, "categories": categories}
    if change:
        key, position, name, value = change
        if position < len(content[key]):
            content[key][position] = {**content[key][position], name: value}
    check(json.dumps(content))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        TREES,
        st.fixed_dictionaries(
            {"images": st.lists(TREES, max_size=2), "annotations": TREES, "categories": TREES}
        ),
    )
)
def test_any_json(tree):
    check(json.dumps(tree))
