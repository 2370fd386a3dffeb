"""The class layers of checkpoints with other classes than the model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lad.modeling.classes import ClassMap

# Weights of PAA's and Detectron2's heads whose shapes depend on the number of classes.
CLASSES = ("class_logits.weight", "class_logits.bias", "cls_score.weight", "cls_score.bias")
NEVER = -20.0  # logit of a class that a network does not know: probability 2e-9


def is_class_layer(key: str, theirs: Tensor, ours: Tensor) -> bool:
    """Whether two weights that differ in shape are those of a class layer, with other classes."""
    return key.endswith(CLASSES) and theirs.shape[1:] == ours.shape[1:]


def select_classes(state: Mapping[str, Tensor], class_map: ClassMap) -> dict[str, Tensor]:
    """Returns weights whose class layers have the rows of the map's classes, in its order.

    A class that the file lacks gets a probability of 2e-9 everywhere.

    Args:
        state: weights of a detector.
        class_map: from its classes to others.

    Raises:
        ValueError: if the class layer has another number of classes than the map says.
    """
    selected = dict(state)
    for key, value in state.items():
        if not key.endswith(CLASSES):
            continue
        if len(value) % class_map.num_classes:
            raise ValueError(
                f"model.teacher_classes names {class_map.num_classes} classes, but {key} has "
                f"{len(value)} rows: name each class of the file, in its order"
            )
        # Detectron2's heads have all classes of the first anchor, then those of the next.
        rows = value.unflatten(0, (-1, class_map.num_classes))
        unknown = torch.full_like(rows[:, :1], NEVER if value.dim() == 1 else 0.0)
        rows = torch.cat([rows, unknown], dim=1)  # index -1
        selected[key] = rows[:, list(class_map.source)].flatten(0, 1)
    return selected
