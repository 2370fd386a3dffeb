"""PAA: a dense detector that assigns its own labels (arXiv 2007.08103)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from torch import Tensor, nn

from lad.assignment.assigners import LabelAssigner
from lad.boxes import AnchorGenerator
from lad.modeling.inference import Detector
from lad.modeling.losses import DetectionLosses
from lad.structures import Anchors, Assignment, Candidates, DensePredictions, Targets


@META_ARCH_REGISTRY.register()
class PAA(DenseDetector):
    """A dense detector trained on an assignment made from its own predictions.

    The parts of a training step are methods of their own, so that label assignment distillation can
    compose them: `predict`, `cost`, `assign`, `losses`.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str],
        anchor_generator: AnchorGenerator,
        assigner: LabelAssigner,
        losses: DetectionLosses,
        detector: Detector,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        """Keeps the parts and settings.

        Args:
            backbone: gives a dict of feature maps.
            head: makes `DensePredictions` from the feature maps.
            head_in_features: names of the feature maps, finest first.
            anchor_generator: one square anchor per cell; as many strides as feature maps.
            assigner: makes labels from costs.
            losses: makes losses from predictions and labels.
            detector: makes detections from predictions.
            pixel_mean: per channel, in the images' order (RGB in the shipped configs).
            pixel_std: per channel.

        Raises:
            ValueError: when the strides of features and anchors, or the numbers of classes of head
                and assigner, differ.
        """
        super().__init__(
            backbone, head, list(head_in_features), pixel_mean=pixel_mean, pixel_std=pixel_std
        )
        strides = tuple(backbone.output_shape()[name].stride for name in head_in_features)
        if strides != anchor_generator.strides:
            raise ValueError(
                f"features {list(head_in_features)} have strides {strides}, the anchors "
                f"{anchor_generator.strides}: make model.anchor_generator.strides equal"
            )
        if head.num_classes != assigner.num_classes:
            raise ValueError(
                f"the head has {head.num_classes} classes, the assigner {assigner.num_classes}: "
                "set model.head.num_classes, and let the assigner follow it"
            )
        self.normalisation = tuple(pixel_mean), tuple(pixel_std)
        self.anchor_generator = anchor_generator
        # Saved with the weights, which are worthless with other anchors: loading compares them.
        layout = torch.tensor([anchor_generator.strides, anchor_generator.sizes]).T
        self.register_buffer("anchor_layout", layout)
        self.assigner = assigner
        self.detection_losses = losses
        self.detector = detector

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses in training, ``[{"instances": Instances}]`` else; inputs are Detectron2's."""
        images = self.preprocess_image(batched_inputs)
        predictions, anchors = self.predict(images.tensor)
        if not self.training:
            return self.inference(batched_inputs, images.image_sizes, predictions, anchors)
        targets, candidates = self.prepare(batched_inputs, anchors)
        cost = self.cost(predictions, anchors, targets, candidates)
        assignment = self.assign(cost, candidates, anchors, targets)
        return self.losses(predictions, assignment, anchors, targets)

    def predict(self, images: Tensor) -> tuple[DensePredictions, Anchors]:
        """Runs the network on (N, 3, H, W) normalised, padded images."""
        features = self.backbone(images)
        features = [features[name] for name in self.head_in_features]
        anchors = self.anchor_generator([x.shape[-2:] for x in features], images.device)
        return self.head(features), anchors

    def prepare(self, batched_inputs: list[dict], anchors: Anchors) -> tuple[Targets, Candidates]:
        """Returns the batch's targets and candidates on the model's device.

        The geometry is worked out where the loader left the ground truth, the CPU: a GPU runs the
        networks meanwhile and is not waited for.
        """
        targets = self.targets(batched_inputs)
        candidates = self.assigner.candidates(anchors, targets)
        return targets.to(self.device), candidates.to(self.device)

    @staticmethod
    def targets(batched_inputs: list[dict]) -> Targets:
        """Returns the batch's ground truth, where the loader left it.

        Raises:
            ValueError: when an input has no "instances".
        """
        if any("instances" not in x for x in batched_inputs):
            raise ValueError("training needs ground truth: an input has no 'instances'")
        return Targets.from_instances([x["instances"] for x in batched_inputs])

    def cost(
        self,
        predictions: DensePredictions,
        anchors: Anchors,
        targets: Targets,
        candidates: Candidates,
    ) -> Tensor:
        """Returns the assignment costs (see `AssignmentCost.cost`) of any network's predictions."""
        return self.assigner.cost(predictions, anchors, targets, candidates)

    def assign(
        self, cost: Tensor, candidates: Candidates, anchors: Anchors, targets: Targets
    ) -> Assignment:
        """Makes labels from costs."""
        return self.assigner.assign(cost, candidates, anchors, targets)

    def losses(
        self,
        predictions: DensePredictions,
        assignment: Assignment,
        anchors: Anchors,
        targets: Targets,
    ) -> dict[str, Tensor]:
        """Returns the losses of predictions on an assignment."""
        return self.detection_losses(predictions, assignment, anchors, targets)

    def inference(
        self,
        batched_inputs: list[dict],
        image_sizes: list[tuple[int, int]],
        predictions: DensePredictions,
        anchors: Anchors,
    ) -> list[dict]:
        """Returns ``[{"instances": Instances}]`` in coordinates of each input's height, width."""
        output_sizes = [
            (int(x.get("height", size[0])), int(x.get("width", size[1])))
            for x, size in zip(batched_inputs, image_sizes, strict=True)
        ]
        sizes = torch.tensor([tuple(size) for size in image_sizes], device=self.device)
        detections = self.detector(predictions, anchors, sizes, output_sizes)
        return [{"instances": instances} for instances in detections]
