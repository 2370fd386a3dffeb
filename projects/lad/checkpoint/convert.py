"""Names of foreign checkpoints' parameters in ours.

Recognised by their keys: MMDetection's PAA and LAD detectors and the official CoLAD ones (the same
layout, with a prefix for the second network), and torchvision-style ResNets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# torchvision's ResNet names, also inside MMDetection's backbones, in Detectron2's.
_RESNET = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.(\d+)\.conv2\.conv_offset\.", r"res<\1>.\2.conv2_offset."),
    (r"^layer(\d)\.(\d+)\.conv(\d)\.", r"res<\1>.\2.conv\3."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", r"res<\1>.\2.conv\3.norm."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", r"res<\1>.\2.shortcut."),
    (r"^layer(\d)\.(\d+)\.downsample\.1\.", r"res<\1>.\2.shortcut.norm."),
)

_DETECTOR = (
    (r"^neck\.lateral_convs\.(\d)\.conv\.", r"backbone.fpn_lateral<+\1>."),
    (r"^neck\.fpn_convs\.([012])\.conv\.", r"backbone.fpn_output<+\1>."),
    (r"^neck\.fpn_convs\.3\.conv\.", "backbone.top_block.p6."),
    (r"^neck\.fpn_convs\.4\.conv\.", "backbone.top_block.p7."),
    (r"^bbox_head\.cls_convs\.(\d)\.conv\.", r"head.class_tower.<*\1>."),
    (r"^bbox_head\.cls_convs\.(\d)\.gn\.", r"head.class_tower.<*\1+1>."),
    (r"^bbox_head\.reg_convs\.(\d)\.conv\.", r"head.box_tower.<*\1>."),
    (r"^bbox_head\.reg_convs\.(\d)\.gn\.", r"head.box_tower.<*\1+1>."),
    (r"^bbox_head\.atss_cls\.", "head.class_logits."),
    (r"^bbox_head\.atss_reg\.", "head.deltas."),
    (r"^bbox_head\.atss_centerness\.", "head.quality."),
    (r"^bbox_head\.scales\.(\d)\.", r"head.scales.\1."),
    (r"^bbox_head\.coeff_conv\.", "head.objectness.coefficients."),
    (r"^bbox_head\.objectness\.", "head.objectness.objectness."),
    (r"^bbox_head\.obj_bias\.", "head.objectness.offset."),
)


def swin_key(key, keys):
    return key


def resnet_key(key: str) -> str | None:
    """Returns Detectron2's name of a torchvision ResNet parameter, None for other keys."""
    for pattern, replacement in _RESNET:
        if re.match(pattern, key):
            return _fill(re.sub(pattern, replacement, key))
    return None


def mmdetection_key(key: str) -> str | None:
    """Returns our PAA's name of a parameter of an MMDetection detector, None for other keys."""
    if key.startswith("backbone."):
        name = resnet_key(key.removeprefix("backbone."))
        return name and f"backbone.bottom_up.{name}"
    for pattern, replacement in _DETECTOR:
        if re.match(pattern, key):
            return _fill(re.sub(pattern, replacement, key))
    return None


def _fill(name: str) -> str:
    """Works out the index arithmetic that a regular expression cannot."""
    name = re.sub(r"res<(\d)>", lambda m: f"res{int(m[1]) + 1}", name)  # layer1 is res2
    name = re.sub(r"<\+(\d)>", lambda m: str(int(m[1]) + 3), name)  # level 0 is P3
    name = re.sub(r"<\*(\d)\+1>", lambda m: str(3 * int(m[1]) + 1), name)  # (conv, norm, ReLU) each
    return re.sub(r"<\*(\d)>", lambda m: str(3 * int(m[1])), name)


def is_mmdetection(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of an MMDetection dense detector."""
    return any(key.startswith("bbox_head.") for key in state)


def from_mmdetection(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Renames one network of an MMDetection state dict.

    Args:
        state: the state dict; keys of a second network (``teacher_``...) are not ours to take here.

    Returns:
        The state dict in our names and the keys that have no counterpart.
    """
    renamed, unused = {}, []
    for key, value in state.items():
        name = mmdetection_key(key)
        if name is None:
            unused.append(key)
        else:
            renamed[name] = value
    return renamed, unused
