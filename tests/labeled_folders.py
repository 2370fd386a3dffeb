"""Small folders of images and labels, as labeling tools export them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

Boxes = Sequence[tuple[int, tuple[float, float, float, float]]]  # (class, x, y, width, height)


def write_image(path: Path, size: tuple[int, int] = (64, 48), boxes: Boxes = ()) -> Path:
    """Writes an image with a bright rectangle in each box, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (30, 40, 50))
    for label, (x, y, width, height) in boxes:
        color = (250, 200, 20) if label % 2 else (20, 200, 250)
        image.paste(color, (int(x), int(y), int(x + width), int(y + height)))
    image.save(path)
    return path


def write_coco(
    json_file: Path,
    image_folder: Path,
    images: Mapping[str, Boxes],
    categories: Mapping[int, str],
    size: tuple[int, int] = (64, 48),
) -> dict:
    """Writes images and an annotation file whose classes are category ids; returns its content."""
    content: dict = {"images": [], "annotations": []}
    content["categories"] = [{"id": i, "name": name} for i, name in categories.items()]
    for image_id, (name, boxes) in enumerate(images.items()):
        write_image(image_folder / name, size, boxes)
        image = {"id": image_id, "file_name": name, "width": size[0], "height": size[1]}
        content["images"].append(image)
        for label, box in boxes:
            annotation = {"image_id": image_id, "category_id": label, "bbox": list(box)}
            content["annotations"].append({"id": len(content["annotations"]), **annotation})
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(content))
    return content


def write_yolo(image: Path, boxes: Boxes = (), size: tuple[int, int] = (64, 48)) -> Path:
    """Writes an image below a folder "images", and its labels; returns the labels' path."""
    write_image(image, size, boxes)
    rows = []
    for label, (x, y, width, height) in boxes:
        shares = (x + width / 2) / size[0], (y + height / 2) / size[1]
        shares += width / size[0], height / size[1]
        rows.append(" ".join(map(str, (label, *shares))))
    parts = ["labels" if part == "images" else part for part in image.parts]
    labels = Path(*parts).with_suffix(".txt")
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text("\n".join(rows))
    return labels


def write_voc(folder: Path, name: str, boxes: Sequence[tuple[str, tuple[int, ...]]]) -> Path:
    """Writes an image and its xml file with boxes of corners that count from 1."""
    write_image(folder / "JPEGImages" / f"{name}.jpg")
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for label, box in boxes
    )
    file = folder / "Annotations" / f"{name}.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = f"<annotation><filename>wrong name</filename>{objects}</annotation>"
    file.write_text(text, "utf-8")
    return file
