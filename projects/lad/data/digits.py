"""Digit scenes: a detection dataset generated from scikit-learn's data, without a download.

Handwritten digits (``sklearn.datasets.load_digits``, 1,797 scans of 8x8) are drawn on crops of
photographs (``load_sample_images``). Train and val share neither a scan nor a photo region. The
dataset is written as PNG and COCO json when it is first loaded.
"""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.utils import comm
from PIL import Image
from tqdm import tqdm

from lad.data.scenes import SPLITS, Scene, load_sources, make_scene

CLASS_NAMES = tuple("0123456789")

# Increase it when pixels or boxes change: older folders are then refused.
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class DigitScenesSpec:
    """The parameters of a digit-scenes dataset.

    Attributes:
        image_size: side of the square images in pixels.
        num_train: number of training images.
        num_val: number of validation images.
        seed: a scene depends on (seed, split, index in the split) and image_size alone.

    Raises:
        ValueError: if a value is out of range.
    """

    image_size: int = 160
    num_train: int = 1000
    num_val: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        lower_limits = {"image_size": 32, "num_train": 1, "num_val": 1, "seed": 0}
        for name, limit in lower_limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < limit:
                raise ValueError(
                    f"digit scenes: {name} must be an integer >= {limit}, not {value!r}"
                )


def write_digit_scenes(root: str | os.PathLike, spec: DigitScenesSpec) -> None:
    """Writes ``annotations/*.json`` and the PNG files into ``root`` unless it exists.

    They are written to a temporary folder that is renamed when complete: an interrupted run leaves
    nothing in ``root``, and of several processes the first to finish provides the dataset.

    Raises:
        ValueError: if ``root`` holds something else, or digit scenes of another specification.
        OSError: if ``root`` cannot be written.
    """
    root = Path(root)
    if not root.exists():
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
        except OSError as error:
            raise OSError(
                f"cannot make the digit scenes in {root}: {error.strerror}; point the environment "
                "variable DETECTRON2_DATASETS to a writable folder"
            ) from error
        try:
            scratch.chmod(0o755)  # mkdtemp's 0700 would exclude other users
            _write_all(scratch, spec)
            _rename_unless_exists(scratch, root)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    _check_manifest(root, spec)


def _rename_unless_exists(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        # A folder with files cannot be replaced: another process was faster.
        if not target.exists():
            raise


def _manifest(spec: DigitScenesSpec) -> dict[str, int]:
    return {"format_version": _FORMAT_VERSION, **asdict(spec)}


def _check_manifest(root: Path, spec: DigitScenesSpec) -> None:
    path = root / "manifest.json"
    found = json.loads(path.read_text()) if path.is_file() else "no manifest.json"
    if found != _manifest(spec):
        raise ValueError(
            f"{root} does not hold the digit scenes {_manifest(spec)} but {found}: remove that "
            "folder to generate them again, or use another one"
        )


def _write_all(root: Path, spec: DigitScenesSpec) -> None:
    (root / "annotations").mkdir()
    for split, count in zip(SPLITS, (spec.num_train, spec.num_val), strict=True):
        sources = load_sources(split)
        (root / split).mkdir()
        scenes = []
        for index in tqdm(
            range(count),
            f"digit scenes, {split}",
            unit="image",
            mininterval=1,
            disable=not comm.is_main_process(),
        ):
            scene = make_scene(sources, split, index, image_size=spec.image_size, seed=spec.seed)
            Image.fromarray(scene.image).save(root / split / _file_name(index))
            scenes.append(scene)
        annotations = _to_coco(scenes, spec.image_size)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(annotations))
    (root / "manifest.json").write_text(json.dumps(_manifest(spec)))


def _file_name(index: int) -> str:
    return f"{index:06d}.png"


def _to_coco(scenes: list[Scene], size: int) -> dict:
    """Returns the scenes in COCO's instances format; image and category ids start at 1."""
    annotations: list[dict] = []
    for image_id, scene in enumerate(scenes, start=1):
        for (x, y, w, h), digit in zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": digit + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    images = [
        {"id": i + 1, "file_name": _file_name(i), "width": size, "height": size}
        for i in range(len(scenes))
    ]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def register_digit_scenes(prefix: str, root: str | os.PathLike, spec: DigitScenesSpec) -> None:
    """Registers ``{prefix}_train`` and ``{prefix}_val``; loading either writes both to ``root``.

    Registering them again with the same folder and scenes does nothing.

    Raises:
        ValueError: if a name stands for another dataset already.
    """
    root = Path(root)
    for split in SPLITS:
        name = f"{prefix}_{split}"
        json_file = str(root / "annotations" / f"{split}.json")
        image_root = str(root / split)
        if name in DatasetCatalog.list():
            known = MetadataCatalog.get(name)
            if (known.get("json_file"), known.get("scenes")) != (json_file, spec):
                raise ValueError(
                    f"dataset {name!r} is registered already, with other files or scenes: choose "
                    "another name"
                )
            continue
        DatasetCatalog.register(name, partial(_load, root, spec, json_file, image_root, name))
        MetadataCatalog.get(name).set(
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
            thing_classes=list(CLASS_NAMES),
            scenes=spec,
        )


def _load(
    root: Path, spec: DigitScenesSpec, json_file: str, image_root: str, name: str
) -> list[dict]:
    write_digit_scenes(root, spec)
    return load_coco_json(json_file, image_root, name)
