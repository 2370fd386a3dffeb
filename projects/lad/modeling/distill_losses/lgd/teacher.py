"""LGD's teacher: features like the student's, made of these and the labels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lad.modeling.distill_losses.lgd.modules import (
    AppearanceEncoder,
    KnowledgeMapper,
    LabelEncoder,
    RelationAdapter,
)
from lad.modeling.distill_losses.lgd.objects import MASK_SIZE, Objects
from lad.structures import Targets


class LabelGuidedTeacher(nn.Module):
    """Makes features like the student's from the student's features and the labels.

    Args:
        channels: C.
        num_classes: K.
        context: add the whole image as an object. Without it, an object that is alone in its image
            gives its appearance no gradient.
        interaction: "student_guided", "label_guided", "appearance_only" or "label_only", see
            `RelationAdapter`.
        num_heads: of the attention; divides C.
        label_width: of the label encoder, see `TNet`.
        detach_appearance: no gradients reach the student's features.
        masks: use instance masks instead of boxes.
        half_cell: measure boxes from the cells' centers, see `Objects.cells`.
        one_cell: give an object that meets no cell the nearest, see `Objects.cells`.

    Raises:
        ValueError: for another interaction, or heads that do not divide the channels.
    """

    def __init__(
        self,
        *,
        channels: int,
        num_classes: int,
        context: bool = True,
        interaction: str = "student_guided",
        num_heads: int = 8,
        label_width: int = 64,
        detach_appearance: bool = False,
        masks: bool = False,
        half_cell: bool = False,
        one_cell: bool = False,
    ):
        super().__init__()
        self.channels = channels
        self.num_classes = num_classes
        self.context = context
        self.detach_appearance = detach_appearance
        self.masks = masks
        self.half_cell = half_cell
        self.one_cell = one_cell
        self.label_encoder = self.appearance_encoder = None
        if interaction != "appearance_only":
            size = 4 + num_classes + (MASK_SIZE**2 if masks else 0)
            self.label_encoder = LabelEncoder(size=size, channels=channels, width=label_width)
        if interaction != "label_only":
            self.appearance_encoder = AppearanceEncoder(channels=channels)
        self.relation = RelationAdapter(
            channels=channels, num_heads=num_heads, interaction=interaction
        )
        self.mapper = KnowledgeMapper(channels=channels, context=context)

    def forward(
        self, features: Sequence[Tensor], targets: Targets, image_size: tuple[int, int]
    ) -> list[Tensor]:
        """Returns maps of the features' shapes, (N, C, H_l, W_l).

        Args:
            features: the student's.
            targets: on the features' device.
            image_size: height and width of the padded images in pixels.

        Raises:
            ValueError: for masks that the targets do not have.
        """
        objects = Objects.from_targets(targets, image_size, context=self.context, masks=self.masks)
        cells = objects.cells(
            [x.shape[-2:] for x in features], half_cell=self.half_cell, one_cell=self.one_cell
        )
        appearance = label = None
        if self.appearance_encoder is not None:
            seen = [x.detach() for x in features] if self.detach_appearance else features
            appearance = self.appearance_encoder(seen, cells)
        if self.label_encoder is not None:
            label = self.label_encoder(objects.descriptors(self.num_classes), objects.present)
        return self.mapper(self.relation(appearance, label, objects.present), cells)
