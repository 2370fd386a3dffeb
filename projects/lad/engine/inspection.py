"""Pictures of the assignment during a training, in TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.engine import HookBase
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lad.engine.config import build
from lad.engine.setup import dataset_names
from lad.inspection.compute import check_inspectable, inspect_batch
from lad.inspection.data import objects_of, to_data
from lad.inspection.page import to_pixels

logger = logging.getLogger(__name__)


def labeled_mapper(config: DictConfig) -> DatasetMapper:
    """Returns the config's test mapper, which here keeps the labels.

    Raises:
        ValueError: if it is no mapper of Detectron2.
    """
    key = "dataloader.test.mapper"
    mapper = build(config, key) if OmegaConf.select(config, key) is not None else None
    if not isinstance(mapper, DatasetMapper):
        raise ValueError(f"{key}: it is no DatasetMapper of Detectron2, which tells the image size")
    mapper.is_train = True
    return mapper


class AssignmentFigures(HookBase):
    """Draws the assignment of one image every ``period`` iterations, for TensorBoard.

    The figures are those of tools/inspect_assignment.py. Weights and random numbers of the training
    stay as they are.

    Args:
        period: in iterations.
        model: the trained model, without DDP.
        record: the image in its input format, with "instances".
        image_format: of the image, "RGB" or "BGR".
        names: of the classes; their numbers are shown where it is too short.

    Raises:
        ValueError: if the model assigns no labels to anchors.
    """

    def __init__(
        self,
        *,
        period: int,
        model: nn.Module,
        record: dict,
        image_format: str,
        names: Sequence[str] = (),
    ):
        check_inspectable(model)
        self._period = period
        self._model = model
        self._record = record
        self._pixels = to_pixels(record["image"], image_format)
        self._names = names

    def after_step(self) -> None:
        """Draws in every period."""
        if (self.trainer.iter + 1) % self._period:
            return
        try:
            inspection = inspect_batch(self._model, [self._record])
        except ValueError as error:
            logger.warning(f"No picture of the assignment: {error}")
            return
        from lad.inspection.figures import draw_figures  # Matplotlib is slow to import.

        objects = [
            {"name": self._name(x["class"]), "box": x["box"]} for x in objects_of(inspection, 0)
        ]
        state, strides = to_data(inspection), inspection.anchors.strides
        for name, picture in draw_figures(self._pixels, objects, state, strides).items():
            tensor = torch.from_numpy(picture).permute(2, 0, 1)
            self.trainer.storage.put_image(f"inspect/{name}", tensor)

    def _name(self, number: int) -> str:
        return self._names[number] if number < len(self._names) else str(number)


def assignment_figures(config: DictConfig, model: nn.Module) -> AssignmentFigures | None:
    """Returns the hook of ``train.vis_period``, None if that is 0.

    It draws the first image with objects of the test dataset.

    Raises:
        ValueError: if the model or the data cannot be drawn.
    """
    period = config.train.get("vis_period", 0)
    if not period:
        return None
    try:
        mapper = labeled_mapper(config)
        if OmegaConf.select(config, "dataloader.test.dataset") is None:
            raise ValueError("dataloader.test.dataset: there is none")
        records = build(config, "dataloader.test.dataset")
        record = next((x for x in records if x.get("annotations")), None)
        if record is None:
            raise ValueError("dataloader.test.dataset: no image has objects")
        names = dataset_names(config, "test")
        return AssignmentFigures(
            period=period,
            model=model,
            record=mapper(record),
            image_format=mapper.image_format,
            names=MetadataCatalog.get(names[0]).get("thing_classes", ()) if names else (),
        )
    except ValueError as error:
        raise ValueError(f"train.vis_period={period}: {error}; set it to 0") from error
