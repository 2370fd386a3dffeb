"""Detectron2's own RetinaNet and FCOS; an ``assigner`` replaces their static rule."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead

from lad.modeling.detectron2 import FCOS, RetinaNet

from .paa import IMAGENET_MEAN, IMAGENET_STD, fpn_p2_p4

_OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))


def retinanet(backbone, features, strides, channels=256, num_classes=80):
    """RetinaNet with its nine anchors per cell on any backbone that gives the features."""
    return L(RetinaNet)(
        backbone=backbone,
        head=L(RetinaNetHead)(
            input_shape=[L(ShapeSpec)(channels=channels) for _ in features],
            num_classes="${..num_classes}",
            conv_dims=[channels] * 4,
            prior_prob=0.01,
            num_anchors=9,
        ),
        head_in_features=list(features),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[4.0 * stride * octave for octave in _OCTAVES] for stride in strides],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=list(strides),
            offset=0.0,
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        anchor_matcher=L(Matcher)(
            thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        num_classes=num_classes,
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        input_format="RGB",
        assigner=None,
    )


def fcos(backbone, features, channels=256, num_classes=80):
    """FCOS on any backbone that gives the features."""
    return L(FCOS)(
        backbone=backbone,
        head=L(FCOSHead)(
            input_shape=[L(ShapeSpec)(channels=channels) for _ in features],
            num_classes="${..num_classes}",
            conv_dims=[channels] * 4,
            norm="BN",
        ),
        head_in_features=list(features),
        num_classes=num_classes,
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        test_score_thresh=0.05,
        assigner=None,
    )


def one_square_anchor(model, scale=4.0):
    """Gives a RetinaNet the anchors of PAA: one square per cell, of side scale * stride."""
    model.head.num_anchors = 1
    strides = model.anchor_generator.strides
    model.anchor_generator.sizes = [[scale * stride] for stride in strides]
    model.anchor_generator.aspect_ratios = [1.0]
    return model


def retinanet_small(depth=10, width=32, channels=32, num_classes=10):
    """RetinaNet on the small detectors' backbone, with PAA's anchors, to train from scratch."""
    backbone = fpn_p2_p4(depth, width, channels)
    model = retinanet(backbone, ["p2", "p3", "p4"], [4, 8, 16], channels, num_classes)
    model.head.update(conv_dims=[channels] * 2, norm="BN")
    return one_square_anchor(model)


def fcos_small(depth=10, width=32, channels=32, num_classes=10):
    """FCOS on the small detectors' backbone, to train from scratch."""
    model = fcos(fpn_p2_p4(depth, width, channels), ["p2", "p3", "p4"], channels, num_classes)
    model.head.conv_dims = [channels] * 2
    return model
