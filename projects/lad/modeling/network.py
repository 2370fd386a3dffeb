"""The interfaces of models for distillation and the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from lad.assignment.assigners import LabelAssigner
from lad.assignment.switch import RoleSwitch, SwitchRecord
from lad.modeling.classes import ClassMap
from lad.modeling.postprocess import NMSSettings, SelectedBoxes
from lad.structures import (
    Assignment,
    BoxCoder,
    CandidateCosts,
    Candidates,
    DensePredictions,
    Targets,
)


class Roles:
    """The state of a role switch between steps, owned by `RoleSwitchHook`.

    Args:
        switch: makes the decisions.

    Attributes:
        forced: True (the student) or False (the teacher) overrides the next decisions.
        own_labels: without a decision, each network is trained on its own labels.
        student_teaches: scope iteration's last decision.
        record: of the last step.
    """

    def __init__(self, switch: RoleSwitch):
        self.switch = switch
        self.forced: bool | None = None
        self.own_labels = False
        self.student_teaches: bool | Tensor = False
        self.record: SwitchRecord | None = None

    def decide(
        self,
        student: CandidateCosts,
        teacher: CandidateCosts,
        candidates: Candidates,
        targets: Targets,
        num_levels: int,
    ) -> Tensor:
        """Returns the switch's decision, (P,) bool: True where the student's cost counts."""
        by_student, self.record = self.switch(
            student.cost,
            teacher.cost,
            candidates,
            targets,
            num_levels,
            forced=self.forced,
            previous=self.student_teaches,
        )
        self.student_teaches = self.record.student_teaches
        return by_student


class Progress:
    """How much of a training is done, kept by `ProgressHook` for losses that start or end in it.

    Attributes:
        share: of the iterations before the current one, from 0 to 1.
    """

    def __init__(self, share: float = 0.0):
        self.share = share


class ModelInfo(NamedTuple):
    """A model's networks, and how to load and evaluate them.

    Attributes:
        networks: the model's networks by name; a single one is "".
        evaluated: names of the networks to evaluate, by the prefix of their results.
        checkpoints: paths of initial weights, by name of the network.
        num_classes: K; None if unknown.
        roles: of the model's role switch; None without one.
        progress: of the training; None if the model does not ask for it.
        class_maps: from the classes of networks' checkpoints to theirs, by name of the network.
        takes_unlabeled: whether something learns from images without labels.
    """

    networks: Mapping[str, nn.Module]
    evaluated: Mapping[str, str]
    checkpoints: Mapping[str, str] = {}
    num_classes: int | None = None
    roles: Roles | None = None
    progress: Progress | None = None
    class_maps: Mapping[str, ClassMap] = {}
    takes_unlabeled: bool = False


@runtime_checkable
class HasInfo(Protocol):
    """A model that describes itself; any other model is a single network."""

    def info(self) -> ModelInfo:
        """Returns the networks and how to load and evaluate them."""


def model_info(model: nn.Module) -> ModelInfo:
    """Returns a model's description."""
    return model.info() if isinstance(model, HasInfo) else ModelInfo({"": model}, {"": ""})


class NetworkOutput(NamedTuple):
    """One network's outputs for a batch.

    Attributes:
        network: the network.
        features: the head's inputs, (N, C, H_l, W_l), finest first.
        predictions: of the head.
        intermediates: outputs of inner modules by name, one per call: a tower that all levels share
            has one per level.
        image_size: height and width of the padded images in pixels.
        known_classes: (K,) bool, False for classes that a teacher was not trained on; None for a
            network that knows them all.
    """

    network: DenseNetwork
    features: list[Tensor]
    predictions: DensePredictions
    intermediates: dict[str, list[Tensor]]
    image_size: tuple[int, int]
    known_classes: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """Returns features, predictions and intermediates."""
        found = [*self.features, *(x for maps in self.intermediates.values() for x in maps)]
        if isinstance(self.predictions, DensePredictions):  # an R-CNN's are its features
            maps = self.predictions
            found += [x for x in (maps.scores, maps.regression, maps.quality) if x is not None]
        return found

    def first(self, number: int) -> NetworkOutput:
        """Returns the outputs for the first images."""
        return self._replace(
            features=[x[:number] for x in self.features],
            predictions=self.predictions.first(number),
            intermediates={k: [x[:number] for x in v] for k, v in self.intermediates.items()},
        )

    def detach(self) -> NetworkOutput:
        """Returns the same outputs outside the autograd graph."""
        return self._replace(
            features=[x.detach() for x in self.features],
            predictions=self.predictions.detach(),
            intermediates={k: [x.detach() for x in v] for k, v in self.intermediates.items()},
        )


class Towers(NamedTuple):
    """Names of a head's two towers: sequences of convolutions, each with norm (or not) and ReLU.

    Attributes:
        classes: the module whose output the class scores are made of.
        boxes: that of the boxes and the quality.
    """

    classes: str
    boxes: str


class DenseNetwork(nn.Module):
    """Detectron2's `DenseDetector` in the steps that distillation needs.

    It is inherited before a subclass of `DenseDetector`, which provides backbone, feature names and
    head. A network adds `to_predictions`, `losses`, `first_cells` and `predicts_quality`.

    Attributes:
        num_classes: K.
        assigner: makes labels from costs; None for a network with its own rule.
        towers: of the head; None for a head without.
        coder: between regression and boxes; None for a network without dense predictions.
    """

    towers: Towers | None = None

    num_classes: int
    assigner: LabelAssigner | None
    coder: BoxCoder | None = None
    backbone: nn.Module
    head: nn.Module
    head_in_features: Sequence[str]
    device: torch.device
    pixel_mean: Tensor
    pixel_std: Tensor

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Returns the normalized, padded images of a batch."""
        return super().preprocess_image(batched_inputs)  # type: ignore[misc]

    def extract(self, images: ImageList) -> list[Tensor]:
        """Returns the head's inputs, finest first."""
        features = self.backbone(images.tensor)
        return [features[name] for name in self.head_in_features]

    def predict(self, features: list[Tensor]) -> DensePredictions:
        """Runs the head alone, also on another network's features."""
        return self.to_predictions(self.head(features), features)

    def to_predictions(self, outputs: Any, features: list[Tensor]) -> DensePredictions:
        """Returns the head's maps as predictions per anchor."""
        raise NotImplementedError

    def predict_from_towers(
        self, class_features: list[Tensor], box_features: list[Tensor]
    ) -> DensePredictions:
        """Runs what the head does after its towers, on outputs of them of each level."""
        return self.to_predictions(self.tower_outputs(class_features, box_features), box_features)

    def tower_outputs(self, class_features: list[Tensor], box_features: list[Tensor]) -> Any:
        """Returns the head's maps from both towers' outputs; only of networks with `towers`."""
        raise NotImplementedError

    def first_cells(self) -> list[tuple[int, Tensor]]:
        """Returns (stride, (A, 4) anchors of the first cell) of each level."""
        raise NotImplementedError

    @property
    def predicts_quality(self) -> bool:
        """Whether the predictions have a quality branch."""
        raise NotImplementedError

    def assign(self, predictions: DensePredictions, targets: Targets) -> Assignment:
        """Makes labels from predictions of this or another network with the same anchors.

        Targets are on the loader's device or that of the predictions.
        """
        assert self.assigner is not None
        anchors = predictions.anchors
        candidates = self.assigner.candidates(anchors, targets)
        targets = targets.to(anchors.boxes.device)
        costs = self.assigner.cost(predictions, targets, candidates)
        return self.assigner.assign(costs, candidates, anchors, targets)

    def losses(
        self, predictions: DensePredictions, assignment: Assignment, targets: Targets
    ) -> dict[str, Tensor]:
        """Returns the losses of this network's predictions on an assignment.

        Targets are on the device of the predictions. `Assignment.distilled` changes some networks'
        losses.
        """
        raise NotImplementedError

    def select_boxes(self, predictions: DensePredictions, image_sizes: Tensor) -> SelectedBoxes:
        """Returns the boxes that NMS starts from, by operations of fixed shapes, for export.

        Args:
            predictions: of N images.
            image_sizes: (N, 2) heights and widths before padding.

        Raises:
            ValueError: if the network has none.
        """
        raise self._no_export()

    @property
    def nms_settings(self) -> NMSSettings:
        """How the network makes detections of `select_boxes`; raises as that does."""
        raise self._no_export()

    def _no_export(self) -> ValueError:
        return ValueError(f"{type(self).__name__} cannot be exported: it has no select_boxes")

    @contextmanager
    def second_pass(self) -> Iterator[None]:
        """While it runs, `predict` and `losses` leave what lasts over steps as it is.

        A step counts once, with the network's own features: in batch norm's running statistics, and
        in a moving loss normalizer.
        """
        norms = [x for x in self.modules() if isinstance(x, nn.modules.batchnorm._BatchNorm)]
        momenta = [x.momentum for x in norms]
        try:
            for norm in norms:
                norm.momentum = 0.0
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum

    def forward_training(
        self, images: ImageList, features: list[Tensor], outputs: Any, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Returns the losses on this network's own assignment; called by `DenseDetector`."""
        targets = Targets.from_instances(gt_instances)
        predictions = self.to_predictions(outputs, features)
        return self.losses(predictions, self.assign(predictions, targets), targets)

    def run(self, images: ImageList, intermediates: Sequence[str] = ()) -> NetworkOutput:
        """Runs the network on the images of `preprocess_image`.

        ``intermediates`` names inner modules, as in `nn.Module.get_submodule`, to record.
        """
        with recorded(self, intermediates) as outputs:
            features = self.extract(images)
            height, width = images.tensor.shape[-2:]
            return NetworkOutput(self, features, self.predict(features), outputs, (height, width))

    def info(self) -> ModelInfo:
        """Describes a single network."""
        return ModelInfo({"": self}, {"": ""}, num_classes=self.num_classes)

    def training_state(self) -> dict[str, float]:
        """Returns the state besides weights that an exact resume needs."""
        return {}

    def load_training_state(self, state: Mapping[str, float]) -> None:
        """Restores the state from `training_state`."""


@contextmanager
def without_gradients(module: nn.Module) -> Iterator[None]:
    """While it runs, a module's parameters are constants: what it computes does not train them."""
    trained = [p for p in module.parameters() if p.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def recorded(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Records the outputs of inner modules by name, one per call, while the block runs.

    Tensors are copied, because a following ReLU may work in place.
    """
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        module.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, kept=kept: kept.append(
                output.clone() if isinstance(output, Tensor) else output
            )
        )
        for name, kept in outputs.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def is_frozen(network: nn.Module) -> bool:
    """Whether none of a network's parameters is trained."""
    return not any(p.requires_grad for p in network.parameters())


def same_values(values: Tensor, other: Tensor, *, atol: float = 0.0) -> bool:
    """Whether two tensors are equal; on the meta device only shapes are compared."""
    if values.shape != other.shape or values.is_meta or other.is_meta:
        return values.shape == other.shape
    return torch.allclose(values.cpu(), other.cpu(), rtol=0, atol=atol)
