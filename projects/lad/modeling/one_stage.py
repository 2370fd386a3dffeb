"""PAA's one-stage detector, with any assigner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import ImageList, Instances
from torch import Tensor

from lad.assignment.assigners import LabelAssigner
from lad.modeling.anchor_generator import AnchorGenerator
from lad.modeling.heads import PAAHead
from lad.modeling.losses import DetectionLosses
from lad.modeling.network import DenseNetwork, Towers
from lad.modeling.postprocess import NMSSettings, PostProcessor, SelectedBoxes
from lad.ops.coders import DeltaCoder
from lad.structures import Assignment, BoxCoder, DensePredictions, Targets


@META_ARCH_REGISTRY.register()
class OneStageDetector(DenseNetwork, DenseDetector):
    """A dense detector trained on an assignment (PAA, ATSS, SimOTA, TAL: the assigner decides).

    Args:
        backbone: returns a dict of feature maps.
        head: predicts maps of scores, regression and quality.
        head_in_features: names of the feature maps, finest first.
        anchor_generator: one square anchor per cell; as many strides as feature maps.
        assigner: makes labels from costs.
        losses: from predictions and labels.
        postprocessor: makes detections from predictions.
        pixel_mean: per channel, in the images' order (RGB in the shipped configs).
        pixel_std: per channel.
        coder: between the head's regression and boxes; None for `DeltaCoder`.

    Raises:
        ValueError: when the strides of features and anchors, the numbers of classes of head and
            assigner, or the regression outputs of head and coder differ, or losses need another
            coder.
    """

    assigner: LabelAssigner
    coder: BoxCoder
    head: PAAHead
    towers = Towers("head.class_tower", "head.box_tower")

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: PAAHead,
        head_in_features: Sequence[str],
        anchor_generator: AnchorGenerator,
        assigner: LabelAssigner,
        losses: DetectionLosses,
        postprocessor: PostProcessor,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        coder: BoxCoder | None = None,
    ):
        super().__init__(
            backbone, head, list(head_in_features), pixel_mean=pixel_mean, pixel_std=pixel_std
        )
        strides = tuple(backbone.output_shape()[name].stride for name in head_in_features)
        if strides != anchor_generator.strides:
            raise ValueError(
                f"features {list(head_in_features)} have strides {list(strides)}, the anchors "
                f"{list(anchor_generator.strides)}: set anchor_generator.strides to those of the "
                "features, or choose other head_in_features and as many head.num_levels"
            )
        if head.num_classes != assigner.num_classes:
            raise ValueError(
                f"the head has {head.num_classes} classes, the assigner {assigner.num_classes}: "
                "set model.head.num_classes, and let the assigner follow it"
            )
        self.coder = coder or DeltaCoder()
        if head.num_outputs != self.coder.num_outputs:
            raise ValueError(
                f"the head has {head.num_outputs} regression outputs per anchor, "
                f"{type(self.coder).__name__} decodes {self.coder.num_outputs}: set model.coder to "
                "the head's (GFLHead: DistributionCoder with its num_bins)"
            )
        losses.check(self.coder)
        self.num_classes = head.num_classes
        self.anchor_generator = anchor_generator
        # Saved with the weights, which are useless with other anchors: loading checks it.
        layout = torch.tensor([anchor_generator.strides, anchor_generator.sizes]).T
        self.register_buffer("anchor_layout", layout)
        self.assigner = assigner
        self.detection_losses = losses
        self.postprocessor = postprocessor

    @property
    def predicts_quality(self) -> bool:
        """Whether the head has the quality branch."""
        return self.head.quality is not None

    def tower_outputs(self, class_features: list[Tensor], box_features: list[Tensor]) -> Any:
        """Returns the head's maps from both towers' outputs."""
        return self.head.outputs(class_features, box_features)

    def first_cells(self) -> list[tuple[int, Tensor]]:
        """Returns (stride, (1, 4) anchor of the first cell) of each level."""
        strides, sizes = self.anchor_generator.strides, self.anchor_generator.sizes
        unit = torch.tensor([[-0.5, -0.5, 0.5, 0.5]])
        return [(stride, size * unit) for stride, size in zip(strides, sizes, strict=True)]

    def to_predictions(self, outputs: Any, features: list[Tensor]) -> DensePredictions:
        """Returns the head's maps as predictions per anchor."""
        scores, regression, quality = outputs

        def per_anchor(maps: list[Tensor]) -> Tensor:
            return torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in maps], dim=1)

        return DensePredictions(
            per_anchor(scores),
            self.head.activation,
            per_anchor(regression),
            per_anchor(quality)[..., 0] if quality else None,
            self.anchor_generator([x.shape[-2:] for x in features], features[0].device),
            self.coder,
        )

    def losses(
        self, predictions: DensePredictions, assignment: Assignment, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns the losses of predictions on an assignment.

        PAA weights the box losses by IoU on the network's own labels; on distilled labels they are
        not weighted (LAD section 3.2). GFL's weights, its scores, stay.
        """
        return self.detection_losses(
            predictions, assignment, targets, weighted=not assignment.distilled
        )

    def select_boxes(self, predictions: DensePredictions, image_sizes: Tensor) -> SelectedBoxes:
        """Returns the boxes that NMS starts from, as the post-processor selects them."""
        return self.postprocessor.select_boxes(predictions, image_sizes)

    @property
    def nms_settings(self) -> NMSSettings:
        """The settings of the post-processor."""
        return self.postprocessor.nms_settings

    def forward_inference(
        self, images: ImageList, features: list[Tensor], outputs: Any
    ) -> list[Instances]:
        """Returns each image's detections; called by `DenseDetector`, which rescales them."""
        predictions = self.to_predictions(outputs, features)
        return self.postprocessor(predictions, [tuple(size) for size in images.image_sizes])
