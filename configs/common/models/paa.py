"""PAA detectors on ResNets. Edit what a function returns: ``model = paa_resnet(50)``."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN

from lad.assignment.costs import PAACost
from lad.assignment.paa import PAAAssigner
from lad.modeling.anchor_generator import AnchorGenerator
from lad.modeling.backbones.resnet import LastLevelP6P7NoReLU, build_resnet
from lad.modeling.heads import ConditionalObjectness, ImplicitObjectness, PAAHead
from lad.modeling.losses import DetectionLosses
from lad.modeling.one_stage import OneStageDetector
from lad.modeling.postprocess import PostProcessor

IMAGENET_MEAN = [123.675, 116.28, 103.53]  # RGB
IMAGENET_STD = [58.395, 57.12, 57.375]


def paa(backbone, features, strides, channels=256, num_classes=80, scale=8.0):
    """A PAA detector on any backbone that gives the features.

    Args:
        backbone: config of a backbone whose feature maps have ``channels`` channels.
        features: names of the feature maps, finest first.
        strides: their strides.
        channels: of features and towers.
        num_classes: of the dataset.
        scale: side of an anchor in strides.
    """
    return L(OneStageDetector)(
        backbone=backbone,
        head=L(PAAHead)(
            in_channels=channels,
            num_classes=num_classes,
            num_levels=len(features),
            channels=channels,
        ),
        head_in_features=list(features),
        anchor_generator=L(AnchorGenerator)(strides=list(strides), scale=scale),
        assigner=L(PAAAssigner)(cost=L(PAACost)(), num_classes="${..head.num_classes}"),
        losses=L(DetectionLosses)(),
        postprocessor=L(PostProcessor)(),
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
    )


def fpn_p3_p7(bottom_up, in_features=("res3", "res4", "res5"), channels=256):
    """FPN P3 to P7; P6 and P7 from P5's output."""
    return L(FPN)(
        bottom_up=bottom_up,
        in_features=list(in_features),
        out_channels=channels,
        top_block=L(LastLevelP6P7NoReLU)(
            in_channels="${..out_channels}", out_channels="${..out_channels}", in_feature="p5"
        ),
    )


def paa_p3_p7(bottom_up, num_classes=80, channels=256):
    """The papers' detector, P3 to P7, on any backbone with features res3 to res5."""
    levels, strides = ["p3", "p4", "p5", "p6", "p7"], [8, 16, 32, 64, 128]
    return paa(fpn_p3_p7(bottom_up, channels=channels), levels, strides, channels, num_classes)


def paa_resnet(depth, num_classes=80):
    """The papers' detector on a pre-trained ResNet of 18, 34, 50, 101 or 152 layers."""
    return paa_p3_p7(L(build_resnet)(depth=depth), num_classes)


def cop(detector, quality=True):
    """Gives a detector conditional objectness, with or without the IoU branch; returns it."""
    objectness = L(ConditionalObjectness)(channels="${..channels}", kernel_size=3)
    detector.head.update(objectness=objectness, quality=quality)
    return detector


def iop(detector, quality=True):
    """Gives a detector implicit objectness, with or without the IoU branch; returns it."""
    objectness = L(ImplicitObjectness)(channels="${..channels}")
    detector.head.update(objectness=objectness, quality=quality)
    return detector


def fpn_p2_p4(depth=10, width=32, channels=32):
    """A small FPN P2 to P4 with batch norm, to train from scratch."""
    bottom_up = L(build_resnet)(
        depth=depth,
        width=width,
        norm="BN",
        freeze_at=0,
        out_features=["res2", "res3", "res4"],
    )
    return L(FPN)(
        bottom_up=bottom_up,
        in_features=["res2", "res3", "res4"],
        out_channels=channels,
        norm="BN",
    )


def paa_small(depth=10, width=32, channels=32, num_classes=10):
    """A small detector to train from scratch: P2 to P4, anchors of half the size."""
    backbone = fpn_p2_p4(depth, width, channels)
    model = paa(backbone, ["p2", "p3", "p4"], [4, 8, 16], channels, num_classes, scale=4.0)
    model.head.num_convs = 2
    return model
