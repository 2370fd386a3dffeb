"""Other backbones, and PAA on them: ResNeXt, deformable, Swin and any of timm's pyramids."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from lad.modeling.backbones.resnet import build_resnet
from lad.modeling.backbones.timm import TimmBackbone, pixel_statistics

from .paa import paa, paa_p3_p7

SWIN_NAMES = {
    "T": "swin_tiny_patch4_window7_224",
    "S": "swin_small_patch4_window7_224",
    "B": "swin_base_patch4_window7_224",
}
SWIN_DROP_PATH = {"T": 0.2, "S": 0.2, "B": 0.3}  # of the Swin detection recipe


def paa_resnext101(dcn=False, num_classes=80):
    """The papers' detector on ResNeXt-101 64x4d; ``dcn``: deformable res3 to res5."""
    bottom_up = L(build_resnet)(
        depth=101,
        num_groups=64,
        width_per_group=4,
        deform_stages=["res3", "res4", "res5"] if dcn else [],
    )
    return paa_p3_p7(bottom_up, num_classes)


def resnet(depth):
    """A pre-trained ResNet."""
    return L(build_resnet)(depth=depth)


def resnet_dcn(depth):
    """A pre-trained ResNet of 50, 101 or 152 layers, deformable in res3 to res5."""
    return L(build_resnet)(depth=depth, deform_stages=["res3", "res4", "res5"])


def resnext101_32x8d_dcn():
    """A pre-trained ResNeXt-101 32x8d, deformable in res3 to res5."""
    bottom_up = resnet_dcn(101)
    bottom_up.update(num_groups=32, width_per_group=8)
    return bottom_up


def paa_resnet_dcn(depth, num_classes=80):
    """The detector on `resnet_dcn`."""
    return paa_p3_p7(resnet_dcn(depth), num_classes)


def swin(size, drop_path_rate=None):
    """Swin "T", "S" or "B": nothing frozen, stages 2 to 4 through their own LayerNorms.

    Args:
        size: "T", "S" or "B".
        drop_path_rate: None for the Swin detection recipe's.
    """
    return L(TimmBackbone)(
        name=SWIN_NAMES[size],
        drop_path_rate=SWIN_DROP_PATH[size] if drop_path_rate is None else drop_path_rate,
        norm_outputs=True,
    )


def paa_swin(size, drop_path_rate=None, num_classes=80):
    """The detector on Swin; see `swin`."""
    return paa_p3_p7(swin(size, drop_path_rate), num_classes)


def paa_timm(name, num_classes=80, channels=256):
    """The detector on any of timm's pyramids, e.g. mobilenetv4_conv_small or resnet10t.

    Args:
        name: timm's name of the model.
        num_classes: of the dataset.
        channels: of FPN and towers.
    """
    bottom_up = L(TimmBackbone)(name=name, norm="FixedBN")
    model = paa_p3_p7(bottom_up, num_classes, channels)
    model.pixel_mean, model.pixel_std = pixel_statistics(name)
    return model


def paa_timm_small(name, num_classes=10, channels=64):
    """A small detector of any of timm's pyramids to train from scratch: P3 to P6, small anchors.

    Args:
        name: timm's name of the model.
        num_classes: of the dataset.
        channels: of FPN and towers.
    """
    backbone = L(FPN)(
        bottom_up=L(TimmBackbone)(name=name),
        in_features=["res3", "res4", "res5"],
        out_channels=channels,
        norm="BN",
        top_block=L(LastLevelMaxPool)(),
    )
    levels = ["p3", "p4", "p5", "p6"]
    model = paa(backbone, levels, [8, 16, 32, 64], channels, num_classes, scale=4.0)
    model.head.num_convs = 2
    model.pixel_mean, model.pixel_std = pixel_statistics(name)
    return model
