"""Reader of folders in Pascal VOC's layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from lad.data.layouts import Layout, Photo, Report, images_in, open_photo, read_text

MAX_XML_BYTES = 10_000_000


def read_voc(folder: Path, report: Report) -> Layout | None:
    """Reads ``Annotations/*.xml`` with JPEGImages/ or images/; returns None if there are none.

    ``ImageSets/Main/{train,val,trainval,test}.txt`` name the images of a split. Classes are in
    alphabetical order. Pixels count from 1, as in Pascal VOC.

    Raises:
        FileNotFoundError: if there is no folder of images.
    """
    files = sorted((folder / "Annotations").glob("*.xml"))
    if not files:
        return None
    images = next((folder / x for x in ("JPEGImages", "images") if (folder / x).is_dir()), None)
    if images is None:
        raise FileNotFoundError(f"{folder}: Annotations/ has xml files, but there is no JPEGImages")
    by_stem = {path.stem: path for path in images_in(images)}
    photos = {}
    for file in files:
        root = _read_xml(file, report)
        if root is None:
            continue
        path = images / (root.findtext("filename") or "").strip()
        path = by_stem.get(file.stem) or path
        if not path.is_file():
            report(f"{file}: there is no image {file.stem}.* in {images}")
        elif photo := open_photo(path, _voc_objects(file, root, report), report, file):
            said = _said_size(root)
            if said in (None, (photo.width, photo.height)):
                photos[file.stem] = photo
            else:
                report(
                    f"{file}: its size is {said[0]}x{said[1]}, but {path} is {photo.width}x"
                    f"{photo.height} (turned as its EXIF data say): correct size and boxes"
                )
    class_names = sorted({o["category_id"] for photo in photos.values() for o in photo.objects})
    for photo in photos.values():
        for entry in photo.objects:
            entry["category_id"] = class_names.index(entry["category_id"])
    return Layout("Pascal VOC", class_names, _voc_splits(folder, photos, report))


def _read_xml(file: Path, report: Report) -> ElementTree.Element | None:
    data = file.read_bytes()
    # Entities can make a small file huge; a document type has no place here. UTF-16 has zeros.
    if len(data) > MAX_XML_BYTES or b"<!DOCTYPE" in data.replace(b"\0", b""):
        report(f"{file}: it is over {MAX_XML_BYTES} bytes or has a DOCTYPE: it is no annotation")
        return None
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        report(f"{file}: it is not XML: {error}")
        return None


def _said_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Returns width and height of the image, None where a tool has left them out."""
    try:
        width, height = (int(float(root.findtext(f"size/{x}") or "")) for x in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width and height else None


def _voc_objects(file: Path, root: ElementTree.Element, report: Report) -> list[dict]:
    """Returns an image's objects, with names in place of class indices."""
    objects = []
    for number, node in enumerate(root.iter("object"), start=1):
        name = (node.findtext("name") or "").strip()
        try:
            corners = [
                float(node.findtext(f"bndbox/{key}") or "")
                for key in ("xmin", "ymin", "xmax", "ymax")
            ]
        except ValueError:
            corners = []
        if not name or not corners:
            report(f"{file}: object {number} has no name or no box of four numbers")
            continue
        x0, y0 = (max(value - 1, 0.0) for value in corners[:2])
        box = [x0, y0, corners[2] - x0, corners[3] - y0]
        objects.append({"bbox": box, "category_id": name, "id": number})
    return objects


def _voc_splits(
    folder: Path, photos: Mapping[str, Photo], report: Report
) -> dict[str, list[Photo]]:
    lists = {x: folder / "ImageSets/Main" / f"{x}.txt" for x in ("train", "val", "test")}
    if not lists["train"].is_file():
        lists["train"] = folder / "ImageSets/Main/trainval.txt"
    splits: dict[str, list[Photo]] = {}
    for split, file in lists.items():
        if not file.is_file():
            continue
        names: dict[str, None] = {}  # without those that come twice
        for line, text in enumerate(read_text(file).splitlines(), start=1):
            name = text.strip()
            if name in photos:
                names[name] = None
            elif name:
                report(f"{file}:{line}: {name!r} has no xml file in Annotations/, or no image")
        splits[split] = [photos[name] for name in names]
    return splits if splits.get("train") else {"train": list(photos.values())}
