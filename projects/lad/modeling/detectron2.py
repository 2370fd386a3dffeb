"""Detectron2's RetinaNet and FCOS as students and teachers, with their own checkpoints' keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.modeling.meta_arch import fcos, retinanet
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from lad import compat
from lad.assignment.assigners import LabelAssigner
from lad.modeling.losses import nan_unless_finite
from lad.modeling.network import DenseNetwork, Towers
from lad.modeling.postprocess import NMSSettings, SelectedBoxes, topk_per_level
from lad.ops.coders import TransformCoder
from lad.structures import Anchors, Assignment, BoxCoder, DensePredictions, Grid, Targets


class Detectron2Network(DenseNetwork):
    """Base of RetinaNet and FCOS, inherited before Detectron2's class.

    Args:
        assigner: makes the labels; None for the detector's own static rule.
        **detector: the arguments of Detectron2's class.

    Raises:
        ValueError: when the numbers of classes of detector and assigner differ.
    """

    towers = Towers("head.cls_subnet", "head.bbox_subnet")
    coder: BoxCoder
    anchor_generator: Any
    box2box_transform: Any
    label_anchors: Any
    max_detections_per_image: int
    test_nms_thresh: float
    test_score_thresh: float
    test_topk_candidates: int
    _is_second_pass = False
    _transpose_dense_predictions: Any

    def __init__(self, *, assigner: LabelAssigner | None = None, **detector: Any):
        super().__init__(**detector)
        if assigner is not None and assigner.num_classes != self.num_classes:
            raise ValueError(
                f"the detector has {self.num_classes} classes, the assigner "
                f"{assigner.num_classes}: let the assigner's num_classes follow the detector's"
            )
        self.assigner = assigner
        self.coder = TransformCoder(self.box2box_transform)
        # Read now: later, reading the values would wait for the GPU.
        self._sides = [_square_side(cell) for _, cell in self.first_cells()]

    def first_cells(self) -> list[tuple[int, Tensor]]:
        """Returns (stride, (A, 4) anchors of the first cell) of each level."""
        generator = self.anchor_generator
        cells = zip(generator.strides, generator.cell_anchors, strict=True)
        return [(stride, cell + generator.offset * stride) for stride, cell in cells]

    def tower_outputs(
        self, class_features: list[Tensor], box_features: list[Tensor]
    ) -> tuple[list[Tensor], ...]:
        """Returns the head's maps from both towers' outputs."""
        head: Any = self.head
        branches = [(head.cls_score, class_features), (head.bbox_pred, box_features)]
        if self.predicts_quality:
            branches.append((head.ctrness, box_features))
        return tuple([branch(x) for x in features] for branch, features in branches)

    def to_predictions(self, outputs: Any, features: list[Tensor]) -> DensePredictions:
        """Returns the head's maps as predictions per anchor."""
        channels = [self.num_classes, 4, 1][: len(outputs)]
        parts = self._transpose_dense_predictions(outputs, channels)
        scores, regression, *quality = (torch.cat(levels, dim=1) for levels in parts)
        boxes = self.anchor_generator(features)
        strides = tuple(self.anchor_generator.strides)
        grids = None
        sides = [side for side in self._sides if side is not None]
        if len(sides) == len(strides):
            offset = self.anchor_generator.offset
            grids = tuple(
                Grid(feature.shape[-2], feature.shape[-1], stride, side, offset * stride)
                for feature, stride, side in zip(features, strides, sides, strict=True)
            )
        numbers = tuple(x.tensor.shape[0] for x in boxes)  # len() fails on an export's symbols
        anchors = Anchors(Boxes.cat(boxes).tensor, numbers, strides, grids)
        quality_logits = quality[0][..., 0] if quality else None
        return DensePredictions(scores, "sigmoid", regression, quality_logits, anchors, self.coder)

    def assign(self, predictions: DensePredictions, targets: Targets) -> Assignment:
        """Makes labels with the assigner, without one by Detectron2's rule for this detector."""
        if self.assigner is not None:
            return super().assign(predictions, targets)
        targets = targets.to(predictions.scores.device)
        anchors, num_classes = predictions.anchors, self.num_classes
        levels = [Boxes(x) for x in anchors.boxes.split(anchors.num_per_level)]
        labels = torch.full(predictions.scores.shape[:2], num_classes, device=anchors.boxes.device)
        gt = torch.full_like(labels, -1)
        for image, size in enumerate(targets.image_sizes.tolist()):
            objects = (targets.image == image).nonzero(as_tuple=True)[0]
            if len(objects):  # Detectron2's FCOS fails without
                # In place of classes, numbers above the background's label identify the objects.
                numbers = num_classes + 1 + torch.arange(len(objects), device=objects.device)
                instances = Instances(size)
                instances.gt_boxes, instances.gt_classes = Boxes(targets.boxes[objects]), numbers
                label = self.label_anchors(levels, [instances])[0][0]
                found = objects[(label - num_classes - 1).clamp(min=0)]
                is_object = label > num_classes
                labels[image] = torch.where(is_object, targets.classes[found], label)
                gt[image] = torch.where(is_object, found, -1)
        return Assignment(labels, gt)

    def losses(
        self, predictions: DensePredictions, assignment: Assignment, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns the losses of Detectron2's class, in float32 also under autocast.

        They are NaN if the regression is not finite, at which its IoU losses fail.
        """
        with torch.autocast(predictions.scores.device.type, enabled=False):
            predictions = predictions.float()
            regression = predictions.regression
            predictions = predictions._replace(regression=regression.nan_to_num())
            losses = self.detectron2_losses(predictions, assignment, targets)
            return nan_unless_finite(losses, regression)

    @contextmanager
    def second_pass(self) -> Iterator[None]:
        """As `DenseNetwork.second_pass`; the losses are divided by the first pass' normalizer."""
        self._is_second_pass = True
        try:
            with super().second_pass():
                yield
        finally:
            self._is_second_pass = False

    def _ema_update(
        self, name: str, value: float, initial_value: float, momentum: float = 0.9
    ) -> float:
        if self._is_second_pass:
            return getattr(self, name)
        return super()._ema_update(name, value, initial_value, momentum)  # type: ignore[misc]

    def detectron2_losses(
        self, predictions: DensePredictions, assignment: Assignment, targets: Targets
    ) -> dict[str, Tensor]:
        """Calls the losses of Detectron2's class with what `loss_inputs` returns."""
        raise NotImplementedError

    def loss_inputs(
        self, predictions: DensePredictions, assignment: Assignment, targets: Targets
    ) -> tuple[list[Boxes], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Returns the inputs of Detectron2's losses, by level or image.

        They are anchors, logits, labels, regression and matched boxes.
        """
        sizes = predictions.anchors.num_per_level
        boxes = predictions.anchors.boxes.new_zeros(*assignment.gt.shape, 4)
        if len(targets.boxes):
            boxes = targets.boxes[assignment.gt.clamp(min=0)]
        return (
            [Boxes(x) for x in predictions.anchors.boxes.split(sizes)],
            list(predictions.scores.split(sizes, dim=1)),
            list(assignment.labels),
            list(predictions.regression.split(sizes, dim=1)),
            list(boxes),
        )

    def select_boxes(self, predictions: DensePredictions, image_sizes: Tensor) -> SelectedBoxes:
        """Returns each level's best pairs of anchor and class, not clipped before NMS.

        Detectron2 takes the pairs above the threshold and of these the best; this is the same.
        """
        scores = predictions.detection_scores()
        levels = scores.split(predictions.anchors.num_per_level, dim=1)
        pair = topk_per_level([x.flatten(1) for x in levels], self.test_topk_candidates)
        anchor, classes = pair // self.num_classes, pair % self.num_classes
        image = torch.arange(len(pair), device=pair.device)[:, None].expand_as(pair)
        boxes = predictions.boxes((image.flatten(), anchor.flatten())).unflatten(0, pair.shape)
        return SelectedBoxes(boxes, scores.flatten(1).gather(1, pair), classes, anchor)

    @property
    def nms_settings(self) -> NMSSettings:
        """Detectron2's settings; it has no score voting."""
        return NMSSettings(
            self.test_score_thresh, self.test_nms_thresh, self.max_detections_per_image, False
        )

    def training_state(self) -> dict[str, float]:
        """Returns the moving loss normalizer, which Detectron2 does not save."""
        return {k: v for k, v in vars(self).items() if k == "loss_normalizer"}

    def load_training_state(self, state: Mapping[str, float]) -> None:
        """Restores a saved loss normalizer."""
        vars(self).update(state)


class RetinaNet(Detectron2Network, retinanet.RetinaNet):
    """Detectron2's RetinaNet (arXiv 1708.02002), with its own rule or any assigner."""

    predicts_quality = False

    def detectron2_losses(
        self, predictions: DensePredictions, assignment: Assignment, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns ``loss_cls`` and ``loss_box_reg``."""
        inputs = self.loss_inputs(predictions, assignment, targets)
        return retinanet.RetinaNet.losses(self, *inputs)


class FCOS(Detectron2Network, fcos.FCOS):
    """Detectron2's FCOS (arXiv 2006.09214), with its own rule or any assigner.

    It has no ignored anchors: those in the padding are background.
    """

    predicts_quality = True

    def detectron2_losses(
        self, predictions: DensePredictions, assignment: Assignment, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns ``loss_fcos_cls``, ``loss_fcos_loc`` and ``loss_fcos_ctr``."""
        labels = assignment.labels
        labels = torch.where(labels < 0, self.num_classes, labels)
        *inputs, boxes = self.loss_inputs(predictions, assignment._replace(labels=labels), targets)
        assert predictions.quality is not None
        sizes = predictions.anchors.num_per_level
        centerness = list(predictions.quality[..., None].split(sizes, dim=1))
        matched = compat.fcos_matched_boxes(torch.stack(boxes))
        return fcos.FCOS.losses(self, *inputs, matched, centerness)

    def compute_ctrness_targets(
        self, anchors: list[Boxes], gt_boxes: list[Boxes] | list[Tensor]
    ) -> Tensor:
        """Returns the (N, R) centerness; 0 where an assigner chose a center outside the box."""
        targets = super().compute_ctrness_targets(anchors, gt_boxes)
        center = Boxes.cat(anchors).get_centers()
        boxes = torch.stack([x.tensor if isinstance(x, Boxes) else x for x in gt_boxes])
        inside = ((boxes[..., :2] < center) & (center < boxes[..., 2:])).all(dim=-1)
        return torch.where(inside, targets, 0.0)


def group_norm(num_groups: int = 32) -> Callable[[int], nn.GroupNorm]:
    """Returns a norm for Detectron2's heads; 0.6 tries "GN" on one channel, which fails."""
    return lambda channels: nn.GroupNorm(min(num_groups, channels), channels)


def _square_side(cell: Tensor) -> float | None:
    """Returns the side of a cell's anchor if it is the only one and square, else None."""
    if len(cell) != 1 or cell.is_meta:
        return None
    left, top, right, bottom = cell[0].tolist()
    return right - left if right - left == bottom - top else None
