"""timm's pyramids as backbones: Swin, ConvNeXt, MobileNet, EfficientNet-Lite and others."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from detectron2.modeling.backbone import Backbone
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class PaddedSwinBlock(SwinTransformerBlock):
    """Swin's block for maps of any size: pads to whole windows, then shifts.

    This is the order of Swin's authors for detection. timm shifts first, which misplaces the
    attention mask where padding is needed.
    """

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        bottom, right = -height % self.window_size[0], -width % self.window_size[1]
        return super()._attn(F.pad(x, (0, 0, 0, right, 0, bottom)))[:, :height, :width]


class TimmBackbone(Backbone):
    """Feature maps of a timm model, named by stride: "res3" has stride 8, "res4" 16, "res5" 32.

    Args:
        name: timm's name of the model.
        out_features: feature maps to return; later stages are not built.
        norm: of batch norms: "BN", or "FixedBN" (fixed statistics, trained affine: for pre-trained
            weights and small batches).
        norm_outputs: normalize each feature map with a LayerNorm over channels, as Swin needs.
        drop_path_rate: probability that the deepest residual branch is dropped in training.
        freeze_at: 2 freezes everything up to "res2"; 0 nothing.
        grad_checkpointing: recompute activations in the backward pass instead of storing them.
        pretrained: download timm's weights; files are loaded by train.init_checkpoint and others.

    Raises:
        ValueError: for an unknown name, a model with a fixed image size or without a pyramid, and
            for features or options that the model does not have.
    """

    body: Any

    def __init__(
        self,
        *,
        name: str,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        norm: str = "BN",
        norm_outputs: bool = False,
        drop_path_rate: float = 0.0,
        freeze_at: int = 0,
        grad_checkpointing: bool = False,
        pretrained: bool = False,
    ):
        super().__init__()
        if norm not in ("BN", "FixedBN"):
            raise ValueError(f"norm={norm}: choose BN or FixedBN, {name} keeps its kind of norms")
        options = _options(name, drop_path_rate)
        with torch.device("meta"):
            info: Any = _create(name, **options).feature_info
        out_features = sorted(out_features)
        indices = _indices(name, info.reduction(), out_features)
        self.body = _create(name, pretrained=pretrained, out_indices=indices, **options)
        for module in self.body.modules():
            if type(module) is SwinTransformerBlock:
                module.__class__ = PaddedSwinBlock
        self._drop_unused()
        channels = dict(zip(out_features, self.body.feature_info.channels(), strict=True))
        self.channels_last = getattr(self.body, "output_fmt", None) == "NHWC"
        self.norms = nn.ModuleDict(
            {key: nn.LayerNorm(channels[key]) for key in out_features if norm_outputs}
        )
        self._out_features = out_features
        self._out_feature_channels = channels
        self._out_feature_strides = {key: _stride(key) for key in out_features}
        self._fixed_norm = norm == "FixedBN"
        self._frozen = self._modules_up_to(freeze_at)
        for module in self._frozen:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        if grad_checkpointing:
            self._checkpoint(name)

    @property
    def size_divisibility(self) -> int:
        """The largest stride."""
        return max(self._out_feature_strides.values())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Returns (N, C, H / stride, W / stride) maps of (N, 3, H, W) images.

        Images are padded on the right and below to multiples of `size_divisibility`.
        """
        divisor = self.size_divisibility
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % divisor, 0, -height % divisor))
        features = dict(zip(self._out_features, self.body(images), strict=True))
        return {key: self._finish(key, x) for key, x in features.items()}

    def train(self, mode: bool = True) -> TimmBackbone:
        """Sets the mode; frozen parts and fixed norms stay in evaluation."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        if self._fixed_norm:
            for module in self.body.modules():
                if isinstance(module, _BatchNorm):
                    module.training = False
        return self

    def pretrained_names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Returns this module's names for the keys of timm's, or Swin's authors', state dict.

        Keys without a counterpart have None. The result is empty for another model's keys.
        """
        # timm flattens names: layers.0 of the whole model is layers_0 of its pyramid.
        own = {_flat(key.removeprefix("model.")): f"body.{key}" for key in self.body.state_dict()}
        keys = list(keys)
        authors = "layers.0.downsample.reduction.weight" in keys
        names = {}
        for key in keys:
            names[key] = own.get(_flat(swin_key(key) if authors else key))
        found = [name for name in names.values() if name]
        return names if 2 * len(found) > len(own) else {}

    def _finish(self, key: str, x: Tensor) -> Tensor:
        if not self.norms:
            return x.permute(0, 3, 1, 2).contiguous() if self.channels_last else x
        x = x if self.channels_last else x.permute(0, 2, 3, 1)
        return self.norms[key](x).permute(0, 3, 1, 2).contiguous()

    def _drop_unused(self) -> None:
        """Drops the blocks after the last feature map, which timm may keep."""
        last = self.body.feature_info.module_name()[-1]
        if last.startswith("blocks.") and isinstance(
            getattr(self.body, "blocks", None), nn.Sequential
        ):
            del self.body.blocks[int(last.split(".")[1]) + 1 :]

    def _modules_up_to(self, freeze_at: int) -> list[nn.Module]:
        """Returns the modules up to the feature map of stride 2^freeze_at, none for 0."""
        if freeze_at == 0:
            return []
        info = self.body.feature_info.info
        ends = {int(math.log2(x["reduction"])): _flat(x["module"]) for x in info}
        modules: list[nn.Module] = []
        # timm registers modules in the order of their use.
        for name, module in list(self.body.named_modules())[1:]:
            if _flat(name) == ends.get(freeze_at):
                return [*modules, *module.modules()]
            modules.append(module)
        raise ValueError(f"freeze_at={freeze_at}: choose 0 (nothing) or one of {sorted(ends)}")

    def _checkpoint(self, name: str) -> None:
        # By stage if stages offer it, else as the whole network does.
        stages = [x for x in self.body.modules() if hasattr(x, "grad_checkpointing")]
        inner = [x for x in stages if x is not self.body]
        if not stages:
            raise ValueError(f"grad_checkpointing=True: timm has none for {name}; set it to False")
        for module in inner or stages:
            module.grad_checkpointing = True


def pixel_statistics(name: str) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation of 0..255 RGB that a timm model was trained with.

    Raises:
        ValueError: for an unknown name.
    """
    pretrained = _pretrained_config(name)
    return [255 * x for x in pretrained.mean], [255 * x for x in pretrained.std]


def swin_key(key: str) -> str:
    """Returns timm's name for a parameter of Swin's authors."""
    # They merge patches at the end of a stage, timm at the start of the next one.
    return re.sub(
        r"^layers\.(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", key
    )


def _flat(name: str) -> str:
    """Returns the form of a name that a whole model and its pyramid share."""
    return name.replace(".", "_")


def _stride(feature: str) -> int:
    return 2 ** int(feature.removeprefix("res"))


def _options(name: str, drop_path_rate: float) -> dict[str, Any]:
    """Returns the model's options for images of any size."""
    pretrained = _pretrained_config(name)
    options: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    if name.startswith("swin_"):
        # All stages shift windows, even if the image size in the name makes their maps small.
        options |= {
            "strict_img_size": False,
            "always_partition": True,
            "drop_path_rate": drop_path_rate,
        }
    elif pretrained.fixed_input_size:
        raise ValueError(
            f"{name} takes images of one size only: choose swin_* or a model of any size"
        )
    return options


def _pretrained_config(name: str) -> Any:
    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0)
        raise ValueError(f"timm has no model {name}; the nearest are {', '.join(nearest)}")
    return timm.get_pretrained_cfg(name)


def _create(name: str, **options: Any) -> nn.Module:
    try:
        return timm.create_model(name, features_only=True, **options)
    except (TypeError, AttributeError, AssertionError) as error:
        raise ValueError(f"timm has no feature maps of {name} with {options}: {error}") from error


def _indices(name: str, strides: list[int], features: Sequence[str]) -> list[int]:
    """Returns the indices of timm's feature maps for names such as "res3"."""
    if len(set(strides)) < len(strides):
        raise ValueError(f"{name} is no pyramid: its feature maps have strides {strides}")
    names = [f"res{int(math.log2(stride))}" for stride in strides]
    for feature in features:
        if feature not in names:
            raise ValueError(f"{name} has no feature {feature}, but {', '.join(names)}")
    return [names.index(feature) for feature in features]
