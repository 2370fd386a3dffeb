"""Predictions of a trained or exported detector on images, with the test settings of its config."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

import lad.data  # noqa: F401  registers the datasets
from lad.checkpoint import load_weights
from lad.data.coco import register_json_path
from lad.engine.config import build, load_config
from lad.engine.setup import (
    check_classes,
    dataset_names,
    detectors,
    last_checkpoint,
    resolve_device,
    use_own_data,
)
from lad.export.runtime import ExportedDetector, is_exported
from lad.media import read_image
from lad.modeling.network import model_info
from lad.visualize import draw_boxes

logger = logging.getLogger(__name__)

ImageSource: TypeAlias = "str | os.PathLike | np.ndarray"
DEVICES = ("cpu", "cuda", "mps")


@dataclass(frozen=True, eq=False)
class Detections:
    """The n objects found in an image, best first, on the CPU.

    Attributes:
        boxes: (n, 4) xyxy in pixels of the image.
        scores: (n,).
        classes: (n,) int64.
        names: n names of classes.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def coco_results(self, category_ids: Sequence[int]) -> list[dict]:
        """Returns a dict per object in COCO's results format, without the image's id.

        Args:
            category_ids: by class number.
        """
        boxes = BoxMode.convert(self.boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
        columns = zip(self.classes.tolist(), boxes, self.scores.tolist(), strict=True)
        return [
            {"category_id": category_ids[number], "bbox": box, "score": score}
            for number, box, score in columns
        ]


class Predictor:
    """Detects objects in images as the evaluation of a config does.

    Images are files, turned as their EXIF says, or (H, W, 3) uint8 arrays in RGB (OpenCV's arrays
    are BGR: pass ``array[..., ::-1]``). They are resized as the config's test images.

        predictor = Predictor("output/digits/lad")
        detections = predictor("photo.jpg")
        predictor.draw("photo.jpg", detections).save("detections.jpg")

    Args:
        run: a training's output folder, with its config.yaml and model_final.pth, or without that
            the last checkpoint; or an exported .onnx or .pt2 file, which needs nothing else.
        config: a path or a loaded LazyConfig, instead of ``run``.
        weights: a checkpoint; needed with ``config``, and with ``run`` instead of its own.
        network: "student" or "teacher"; by default the one that the config evaluates.
        device: "auto" (a CUDA GPU if there is one), "cpu", "cuda" or "mps".
        threshold: detections that score less are left out; so are those below the post-processing's
            own threshold.
        classes: names or numbers of the classes to keep; None keeps all.
        batch_size: of `stream`.
        trusted: a config.yaml may name any class, and a .pt2 file is opened: both then run any
            code that they hold.

    Attributes:
        weights: path of the loaded checkpoint.
        names: of the classes; their numbers if the config's test dataset is not registered.

    Raises:
        ValueError: if something in config or weights does not fit, or a class is unknown.
        FileNotFoundError: if a file does not exist.
    """

    def __init__(
        self,
        run: str | os.PathLike | None = None,
        *,
        config: str | os.PathLike | DictConfig | None = None,
        weights: str | os.PathLike | None = None,
        network: str | None = None,
        device: str = "auto",
        threshold: float = 0.5,
        classes: Sequence[str | int] | None = None,
        batch_size: int = 1,
        trusted: bool = False,
    ):
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold}: choose a number from 0 to 1")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: choose a number of at least 1")
        self.threshold = threshold
        self.batch_size = batch_size
        self._trusted = trusted
        self._exported: ExportedDetector | None = None
        if run is not None and is_exported(run):
            self._open_exported(run, config, weights, network, device)
        else:
            self._open_trained(run, config, weights, network, device)
        self._kept = None if classes is None else self._class_numbers(classes)

    @classmethod
    def open(cls, run_or_config: str | os.PathLike, **options: Any) -> Predictor:
        """Returns a predictor of a run, or of a config if the name ends in .py or .yaml."""
        if Path(run_or_config).suffix in (".py", ".yaml"):
            return cls(config=run_or_config, **options)
        return cls(run_or_config, **options)

    def _open_exported(
        self, run: str | os.PathLike, config: Any, weights: Any, network: str | None, device: str
    ) -> None:
        for name, value in (("config", config), ("weights", weights), ("network", network)):
            if value is not None:
                raise ValueError(f"{run}: an exported file has its own; leave {name} out")
        self.device = resolve_device("cpu" if device == "auto" else device, key="device")
        if self.device != "cpu":
            raise ValueError(f"device={device!r}: exported files run on the CPU here")
        self._exported = ExportedDetector(run, trusted=self._trusted)
        self.weights = os.fspath(run)
        self.names = self._exported.metadata.class_names

    def _open_trained(
        self,
        run: str | os.PathLike | None,
        config: str | os.PathLike | DictConfig | None,
        weights: str | os.PathLike | None,
        network: str | None,
        device: str,
    ) -> None:
        self.device = resolve_device(device, key="device", known=DEVICES)
        loaded, self.weights = _sources(run, config, weights, trusted=self._trusted)
        key, network = _choose_network(loaded, network)
        self.mapper = _test_mapper(loaded)
        self.model = build(loaded, key).eval()
        load_weights(self.model, self.weights, source="weights", complete=True, network=network)
        self.model.to(self.device)
        self.dataset = next(iter(dataset_names(loaded, "test")), "")
        self.names = _class_names(loaded, self.model, self.dataset)

    def __call__(self, image: ImageSource) -> Detections:
        """Returns the detections of one image."""
        return self._predict([image])[0]

    def stream(self, images: Iterable[ImageSource]) -> Iterator[Detections]:
        """Yields the detections of each image; ``batch_size`` images are read at a time.

        Of these, images of one size run through the network together. Others would be padded, which
        changes the statistics of group normalization.
        """
        remaining = iter(images)
        while chunk := list(islice(remaining, self.batch_size)):
            yield from self._predict(chunk)

    def draw(self, image: ImageSource, detections: Detections) -> Image.Image:
        """Returns the image with boxes and labels, enlarged if its short side is below 480 px."""
        named = zip(detections.names, detections.scores.tolist(), strict=True)
        labels = [f"{name} {score:.0%}" for name, score in named]
        boxes, classes = detections.boxes.numpy(), detections.classes.tolist()
        return draw_boxes(_to_array(image), boxes, classes, labels)

    def category_ids(self) -> list[int]:
        """Returns the test dataset's category ids by class number, or the numbers without it."""
        ids = self.known_category_ids()
        if ids is None:
            logger.warning("Category ids are unknown: the results have class numbers, from 0")
            return list(range(len(self.names)))
        return ids

    def known_category_ids(self) -> list[int] | None:
        """Returns the test dataset's category ids by class number, None without it."""
        if self._exported is not None:
            known = self._exported.metadata.category_ids
            return None if known is None else list(known)
        ids = _metadata(self.dataset, "thing_dataset_id_to_contiguous_id")
        return None if ids is None else sorted(ids, key=lambda category: ids[category])

    def _predict(self, images: Sequence[ImageSource]) -> list[Detections]:
        if self._exported is not None:
            outputs = [self._exported(_to_array(image)) for image in images]
            return [self._detections(*map(torch.from_numpy, x)) for x in outputs]
        inputs = [self._prepare(_to_array(image)) for image in images]
        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, prepared in enumerate(inputs):
            sizes.setdefault(prepared["image"].shape, []).append(index)
        found = {}
        for indices in sizes.values():
            with torch.no_grad():
                outputs = self.model([inputs[index] for index in indices])
            for index, output in zip(indices, outputs, strict=True):
                instances = output["instances"].to("cpu")
                boxes = instances.pred_boxes.tensor
                found[index] = self._detections(boxes, instances.scores, instances.pred_classes)
        return [found[index] for index in range(len(inputs))]

    def _prepare(self, pixels: np.ndarray) -> dict:
        """Returns the model's input of an image, as Detectron2's mapper makes it of a file."""
        order = self.mapper.image_format
        augmented = T.AugInput(detection_utils.convert_PIL_to_numpy(Image.fromarray(pixels), order))
        self.mapper.augmentations(augmented)
        tensor = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        return {"image": tensor, "height": pixels.shape[0], "width": pixels.shape[1]}

    def _detections(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Detections:
        keep = scores >= self.threshold
        if self._kept is not None:
            keep &= torch.isin(classes, self._kept)
        names = tuple(self.names[number] for number in classes[keep].tolist())
        return Detections(boxes[keep], scores[keep], classes[keep], names)

    def _class_numbers(self, classes: Sequence[str | int]) -> Tensor:
        known = {name: number for number, name in enumerate(self.names)}
        # A name may be a number, such as that of a digit: names go first.
        known = {str(number): number for number in range(len(self.names))} | known
        for name in classes:
            if str(name) not in known:
                raise ValueError(f"classes: {name!r} is unknown; choose of {', '.join(self.names)}")
        return torch.tensor([known[str(name)] for name in classes], dtype=torch.int64)


def _sources(
    run: str | os.PathLike | None,
    config: str | os.PathLike | DictConfig | None,
    weights: str | os.PathLike | None,
    *,
    trusted: bool,
) -> tuple[DictConfig, str]:
    """Returns the config and the path of the weights."""
    if (run is None) == (config is None):
        raise ValueError("name either the output folder of a training, or a config and weights")
    if run is not None:
        config = Path(run) / "config.yaml"
        if not config.is_file():
            raise ValueError(
                f"{run}: it holds no config.yaml; name the output folder of a training, or config "
                "and weights"
            )
        weights = weights or _run_weights(Path(run))
    if weights is None:
        raise ValueError("weights: none are named; add the checkpoint of a training")
    if not isinstance(config, DictConfig):
        path = os.fspath(config)  # type: ignore[arg-type]
        config = load_config(path, source="config", trusted=trusted)
        use_own_data(config, Path(path))
    return config, os.fspath(weights)


def _run_weights(folder: Path) -> Path:
    final = folder / "model_final.pth"
    if final.is_file():
        return final
    last = last_checkpoint(str(folder))
    if not os.path.isfile(last):
        raise FileNotFoundError(f"{folder}: it holds no checkpoint yet; name one as weights")
    logger.warning(f"{folder}: the training is not finished; {last} is used")
    return Path(last)


def _choose_network(config: DictConfig, network: str | None) -> tuple[str, str | None]:
    """Returns the key of the detector and its name in a checkpoint of two networks."""
    if "model" not in config:
        raise ValueError("config: it defines no model; use a config of this project")
    keys = [key for key, _ in detectors(config)]
    if keys == ["model"]:
        return "model", network
    network = network or config.model.get("eval_network", "student")
    if f"model.{network}" not in keys:
        names = " or ".join(repr(key.removeprefix("model.")) for key in keys)
        raise ValueError(f"network={network!r}: choose {names}, which the config has")
    return f"model.{network}", network


def _test_mapper(config: DictConfig) -> DatasetMapper:
    key = "dataloader.test.mapper"
    mapper = build(config, key) if OmegaConf.select(config, key) is not None else None
    if not isinstance(mapper, DatasetMapper):
        raise ValueError(f"{key}: it is no DatasetMapper of Detectron2, which tells the image size")
    return mapper


def _metadata(dataset: str, key: str) -> Any:
    """Returns a value of a dataset's metadata, None if it is unknown even after loading it."""
    if os.path.isfile(dataset):  # of a training with --data
        register_json_path(dataset)
    if dataset not in DatasetCatalog.list():
        return None
    metadata = MetadataCatalog.get(dataset)
    if metadata.get(key) is None and os.path.isfile(metadata.get("json_file") or ""):
        DatasetCatalog.get(dataset)
    return metadata.get(key)


def _class_names(config: DictConfig, model: nn.Module, dataset: str) -> tuple[str, ...]:
    names = _metadata(dataset, "thing_classes")
    if names is not None:
        check_classes(model, config, "test")
        return tuple(names)
    reason = f"the test dataset {dataset!r} is not registered, or its annotations are missing"
    number = model_info(model).num_classes
    if number is None:
        raise ValueError(
            f"dataloader.test.dataset.names: {reason}; the model needs its class names"
        )
    logger.warning(f"Class names are unknown, numbers are used: {reason}")
    return tuple(str(index) for index in range(number))


def _to_array(image: ImageSource) -> np.ndarray:
    """Returns (H, W, 3) uint8 RGB."""
    if not isinstance(image, np.ndarray):
        return read_image(Path(image))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            "image: an array has to be uint8 RGB of shape (height, width, 3), not "
            f"{image.dtype} of shape {image.shape}"
        )
    return image
