"""Detectron2's Faster and Mask R-CNN as students of losses between features, such as LGD."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import ImageList
from detectron2.utils.events import get_event_storage
from torch import Tensor

from lad.modeling.network import DenseNetwork
from lad.structures import Assignment, Targets


@META_ARCH_REGISTRY.register()
class RCNN(DenseNetwork, GeneralizedRCNN):
    """A two-stage detector of Detectron2, cut where losses between features need it.

    RPN and ROI heads match and sample by the labels while they compute their losses, so the
    "predictions" are the features, and there is no assignment for a teacher to change: it can be no
    student of LAD and no teacher.

    Args:
        head_in_features: names of the features of RPN and ROI heads, finest first.
        **detector: the arguments of Detectron2's class.
    """

    assigner = None
    predicts_quality = False
    proposal_generator: Any
    roi_heads: Any

    def __init__(self, *, head_in_features: Sequence[str], **detector: Any):
        super().__init__(**detector)
        self.head_in_features = list(head_in_features)

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """K."""
        return self.roi_heads.num_classes

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """As Detectron2's, but the losses are NaN where its RPN refuses what is not finite."""
        try:
            return super().forward(batched_inputs)
        except FloatingPointError:
            return self._diverged()

    def _diverged(self, *features: Tensor) -> dict[str, Tensor]:
        # All that is trained takes part, also behind the features: other processes wait for it.
        trained = [x.float().sum() for x in (*self.parameters(), *features) if x.requires_grad]
        total = sum(trained, self.pixel_mean.new_zeros(()))
        return {"loss_rpn_cls": total * math.nan}

    def predict(self, features: list[Tensor]) -> Any:
        """Returns the features: what follows needs the labels."""
        return features

    def first_cells(self) -> list[tuple[int, Tensor]]:
        """Raises ValueError: there is no dense prediction to distill."""
        raise ValueError(
            "model.teacher: Faster and Mask R-CNN have no dense predictions, so they neither have "
            "nor are a teacher: set it to null"
        )

    def assign(self, predictions: Any, targets: Targets) -> Assignment:
        """Returns an assignment without anchors."""
        labels = targets.image.new_zeros(len(targets.image_sizes), 0)
        return Assignment(labels, labels)

    def losses(  # type: ignore[override]
        self, predictions: list[Tensor], assignment: Assignment, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns the losses of RPN and ROI heads on features, with proposals of their own."""
        if self.roi_heads.mask_on and targets.masks is None:
            raise ValueError(
                "Mask R-CNN needs instance masks: set dataloader.train.mapper.use_instance_mask="
                "true and dataloader.train.mapper.instance_mask_format=bitmask"
            )
        maps = dict(zip(self.head_in_features, predictions, strict=True))
        instances = targets.to_instances()
        # Neither reads the pixels.
        images = ImageList(predictions[0], [x.image_size for x in instances])
        try:
            proposals, losses = self.proposal_generator(images, maps, instances)
        except FloatingPointError:
            return self._diverged(*predictions)
        return {**losses, **self.roi_heads(images, maps, proposals, instances)[1]}

    @contextmanager
    def second_pass(self) -> Iterator[None]:
        """As `DenseNetwork.second_pass`; the statistics are logged as ``second_pass/...``."""
        with super().second_pass(), get_event_storage().name_scope("second_pass"):
            yield
