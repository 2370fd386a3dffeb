"""Detection with the labels of the images: what LGD's teacher knows, not a result."""

from __future__ import annotations

from torch import Tensor, nn

from lad.modeling.distill_losses.lgd.loss import LGD
from lad.modeling.distillation import Distillation, ground_truth
from lad.modeling.network import DenseNetwork
from lad.structures import Targets


class Oracle(nn.Module):
    """The student with the features of its label-guided teacher, so it sees what it should find.

    Args:
        model: a student with LGD.

    Raises:
        ValueError: for a model without.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        losses = model.distill_losses if isinstance(model, Distillation) else ()
        found = [loss for loss in losses if isinstance(loss, LGD)]
        if not isinstance(model, Distillation) or not found:
            raise ValueError(f"{type(model).__name__} has no LGD: add it to model.distill_losses")
        self.student: DenseNetwork = model.student
        self.lgd = found[0]

    def features(self, batched_inputs: list[dict]) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the student's and the teacher's features of images with ``instances``."""
        output = self.student.run(self.student.preprocess_image(batched_inputs))
        targets = Targets.from_instances(ground_truth(batched_inputs)).to(self.student.device)
        return output.features, self.lgd.teacher(output.features, targets, output.image_size)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Returns the detections on the teacher's features of images with ``instances``."""
        names = self.student.head_in_features
        features = dict(zip(names, self.features(batched_inputs)[1], strict=True))
        backbone = self.student.backbone
        handle = backbone.register_forward_hook(lambda *_: features)
        try:
            return self.student(batched_inputs)
        finally:
            handle.remove()
