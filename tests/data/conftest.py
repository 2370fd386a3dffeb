"""Fixtures: a tiny dataset in COCO's format, made of blank images."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def coco_files(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Returns a function that writes images and annotations, and returns (json file, image root).

    Its arguments: sizes as (width, height) per image, boxes as (image id, category id, xywh), and
    entries that replace whole lists of the json file.
    """

    def write(sizes, boxes=(), **replaced):
        image_root = tmp_path / "images"
        image_root.mkdir(exist_ok=True)
        images = []
        for i, (width, height) in enumerate(sizes, start=1):
            Image.new("RGB", (width, height), (i, 2 * i, 3 * i)).save(image_root / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        annotations = [
            {
                "id": i,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for i, (image_id, category_id, box) in enumerate(boxes, start=1)
        ]
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            **replaced,
        }
        json_file = tmp_path / "annotations.json"
        json_file.write_text(json.dumps(content))
        return json_file, image_root

    return write
