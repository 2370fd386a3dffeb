"""Conversion of foreign checkpoints to our names.

Recognized by their keys: MMDetection's PAA, LAD and GFL detectors and the official CoLAD ones (the
same layout, with a prefix for the second network), and torchvision-style ResNets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from lad.modeling.backbones.timm import swin_key

# torchvision's ResNet names, also in MMDetection's backbones, to Detectron2's.
_RESNET = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.(\d+)\.conv2(?:\.conv)?_offset\.", r"res<\1>.\2.conv2_offset."),
    (r"^layer(\d)\.(\d+)\.conv(\d)\.", r"res<\1>.\2.conv\3."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", r"res<\1>.\2.conv\3.norm."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", r"res<\1>.\2.shortcut."),
    (r"^layer(\d)\.(\d+)\.downsample\.1\.", r"res<\1>.\2.shortcut.norm."),
)

# MMDetection's names of Swin to those of Swin's authors.
_SWIN = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^stages\.(\d)\.", r"layers.\1."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)

# Buffers of Swin that its sizes determine.
SWIN_BUFFERS = ("relative_position_index", "attn_mask")
# GFL's bins, which their number determines.
BUFFERS = (*SWIN_BUFFERS, "integral.project")

_DETECTOR = (
    (r"^neck\.lateral_convs\.(\d)\.conv\.", r"backbone.fpn_lateral<+\1>."),
    (r"^neck\.fpn_convs\.([012])\.conv\.", r"backbone.fpn_output<+\1>."),
    (r"^neck\.fpn_convs\.3\.conv\.", "backbone.top_block.p6."),
    (r"^neck\.fpn_convs\.4\.conv\.", "backbone.top_block.p7."),
    (r"^bbox_head\.cls_convs\.(\d)\.conv\.", r"head.class_tower.<*\1>."),
    (r"^bbox_head\.cls_convs\.(\d)\.gn\.", r"head.class_tower.<*\1+1>."),
    (r"^bbox_head\.reg_convs\.(\d)\.conv\.", r"head.box_tower.<*\1>."),
    (r"^bbox_head\.reg_convs\.(\d)\.gn\.", r"head.box_tower.<*\1+1>."),
    (r"^bbox_head\.(?:atss|gfl)_cls\.", "head.class_logits."),
    (r"^bbox_head\.(?:atss|gfl)_reg\.", "head.deltas."),
    (r"^bbox_head\.atss_centerness\.", "head.quality."),
    (r"^bbox_head\.scales\.(\d)\.", r"head.scales.\1."),
    (r"^bbox_head\.coeff_conv\.", "head.objectness.coefficients."),
    (r"^bbox_head\.objectness\.", "head.objectness.objectness."),
    (r"^bbox_head\.obj_bias\.", "head.objectness.offset."),
)

# The second network of MMDetection's LAD and of the official CoLAD.
_TEACHER = re.compile(r"^teacher(_model\.|_|\.)(?=(backbone|neck|bbox_head)\.)")


class Conversion(NamedTuple):
    """A foreign checkpoint in our names.

    Attributes:
        origin: the layout that was recognized.
        weights: in our names; two networks' under ``student.`` and ``teacher.``.
        unused: keys of the file without a counterpart.
    """

    origin: str
    weights: dict[str, Tensor]
    unused: list[str]


def convert(state: Mapping[str, Tensor]) -> Conversion:
    """Renames the weights of a foreign checkpoint, of all its networks.

    Raises:
        ValueError: if the keys are of none of these layouts.
    """
    if is_mmdetection(state):
        students, unused = from_mmdetection(state)
        teacher = teacher_part(state)
        if not teacher:
            return Conversion("a detector in MMDetection's layout", students, unused)
        teachers, more = from_mmdetection(teacher)
        weights = {f"student.{key}": value for key, value in students.items()}
        weights |= {f"teacher.{key}": value for key, value in teachers.items()}
        unused = [key for key in unused if not _TEACHER.match(key)]
        unused += [f"teacher's {key}" for key in more]
        return Conversion("two detectors in MMDetection's layout", weights, unused)
    if is_resnet(state):
        names = {key: resnet_key(key) for key in state}
        weights = {name: state[key] for key, name in names.items() if name}
        unused = [key for key, name in names.items() if not name]
        return Conversion("a ResNet in torchvision's layout", weights, unused)
    raise ValueError(
        "there is nothing to convert: its keys are not those of MMDetection's PAA, LAD or GFL or "
        f"of torchvision's ResNets, but {', '.join(list(state)[:3])} (our own, Detectron2's and "
        "timm's files are loaded as they are)"
    )


def is_mmdetection(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of an MMDetection dense detector."""
    return any(key.startswith("bbox_head.") for key in state)


def is_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of a torchvision ResNet, with its plain stem."""
    return "conv1.weight" in state and "layer1.0.conv1.weight" in state


def teacher_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the second network of an MMDetection state dict, without its prefix."""
    return {_TEACHER.sub("", key): v for key, v in state.items() if _TEACHER.match(key)}


def from_mmdetection(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Renames the first network of an MMDetection state dict.

    Returns:
        The state dict in our names and the keys without a counterpart.
    """
    renamed, unused = {}, []
    for key, value in state.items():
        name = mmdetection_key(key)
        if name is None:
            unused.append(key)
        else:
            merging = re.match(r"backbone\.stages\.\d\.downsample\.", key)
            renamed[name] = _patch_order(value) if merging else value
    return renamed, unused


def mmdetection_key(key: str) -> str | None:
    """Returns our name for an MMDetection detector's parameter, None for other keys."""
    if key.startswith("backbone."):
        key = key.removeprefix("backbone.")
        name = resnet_key(key) or _swin_backbone_key(key)
        return name and f"backbone.bottom_up.{name}"
    return _renamed(_DETECTOR, key)


def resnet_key(key: str) -> str | None:
    """Returns Detectron2's name for a torchvision ResNet's parameter, None for other keys."""
    return _renamed(_RESNET, key)


def _swin_backbone_key(key: str) -> str | None:
    """Returns `TimmBackbone`'s name for a detector's Swin parameter, None for other keys."""
    for pattern, replacement in _SWIN:
        key = re.sub(pattern, replacement, key)
    if match := re.match(r"norm(\d)\.", key):  # of a stage's output
        return f"norms.res{int(match[1]) + 2}.{key[match.end() :]}"
    if not key.startswith(("patch_embed.", "layers.")) or key.endswith(SWIN_BUFFERS):
        return None
    return "body." + swin_key(key).replace("layers.", "layers_", 1)


def _patch_order(value: Tensor) -> Tensor:
    """Reorders the (..., 4C) input channels of MMDetection's patch merging for timm's.

    MMDetection unfolds 2 x 2 patches as (channel, row, column); Swin's authors and timm concatenate
    them as (column, row, channel). Weights of another shape stay: they fit no model.
    """
    if not value.dim() or value.shape[-1] % 4:
        return value
    patches = value.unflatten(-1, (-1, 2, 2))
    return patches.transpose(-1, -3).flatten(-3)


def _renamed(patterns: Sequence[tuple[str, str]], key: str) -> str | None:
    for pattern, replacement in patterns:
        if re.match(pattern, key):
            return _fill(re.sub(pattern, replacement, key))
    return None


def _fill(name: str) -> str:
    """Computes the indices that a regular expression cannot."""
    name = re.sub(r"res<(\d)>", lambda m: f"res{int(m[1]) + 1}", name)  # layer1 is res2
    name = re.sub(r"<\+(\d)>", lambda m: str(int(m[1]) + 3), name)  # level 0 is P3
    name = re.sub(r"<\*(\d)\+1>", lambda m: str(3 * int(m[1]) + 1), name)  # (conv, norm, ReLU) each
    return re.sub(r"<\*(\d)>", lambda m: str(3 * int(m[1])), name)
