"""The base of all distillation losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lad.modeling.network import DenseNetwork, NetworkOutput, Progress
from lad.structures import Assignment, Targets


class DistillLoss(nn.Module):
    """A loss between the student's and usually the teacher's outputs.

    Its parameters are trained and saved with the student's, but not exported.

    Args:
        start: share of the training after which the loss counts.
        until: share of the training up to which it does.

    Raises:
        ValueError: for shares that are no interval in 0..1.

    Attributes:
        needs_assignment: whether the loss needs hard labels.
        takes_unlabeled: whether the loss gets the images without labels too. They come last,
            `Targets.labeled` tells them apart, and the assignment has no rows for them.
        progress: of the training, shared with the model.
    """

    needs_assignment = False
    takes_unlabeled = False

    def __init__(self, *, start: float = 0.0, until: float = 1.0) -> None:
        if not 0 <= start <= until <= 1:
            raise ValueError(
                f"start={start}, until={until}: shares of the training, 0 <= start <= until <= 1"
            )
        super().__init__()
        self.start = start
        self.until = until
        self.progress = Progress()

    @property
    def counts(self) -> bool:
        """Whether the training is between ``start`` and ``until``."""
        return self.start <= self.progress.share <= self.until

    def check(self, student: DenseNetwork, teacher: DenseNetwork | None) -> None:
        """Raises ValueError if the loss cannot work with these networks.

        It is called once, so that a loss can make here what depends on the networks' sizes.
        """

    def intermediates(self, network: DenseNetwork) -> Sequence[str]:
        """Returns the names of a network's inner modules whose outputs the loss needs."""
        return ()

    def forward(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput | None,
        targets: Targets,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Returns named scalar losses.

        Args:
            student: the student's outputs.
            teacher: the teacher's outputs without gradients, None without a teacher.
            targets: the ground truth on the networks' device.
            assignment: the student's labels; None without hard labels.
        """
        raise NotImplementedError

    def scheduled(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput | None,
        targets: Targets,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Returns the losses, times 0 outside ``start`` to ``until``.

        All that the loss trains then gets gradients of 0, as DistributedDataParallel needs, also
        where the loss itself is not finite.
        """
        if self.counts:
            return self(student, teacher, targets, assignment)
        with torch.no_grad():
            names = self(student, teacher, targets, assignment)
        trained = [x for x in (*student.tensors(), *self.parameters()) if x.requires_grad]
        zero = sum(
            (0.0 * x.sum(dtype=torch.float32) for x in trained), start=targets.boxes.new_zeros(())
        )
        return dict.fromkeys(names, zero)
