"""Detectron2's own RetinaNet and FCOS; an ``assigner`` replaces their static rule."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead

from lad.modeling.detectron2 import FCOS, RetinaNet, group_norm

from .paa import IMAGENET_MEAN, IMAGENET_STD, fpn_p2_p4, fpn_p3_p7

P3_P7 = {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}

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


def _fpn_p3_p7(bottom_up, in_feature, in_channels):
    """FPN P3 to P7; P6 and P7 from the named feature, with Detectron2's ReLU between them."""
    fpn = fpn_p3_p7(bottom_up)
    fpn.top_block._target_ = LastLevelP6P7
    fpn.top_block.update(in_channels=in_channels, in_feature=in_feature)
    return fpn


def retinanet_p3_p7(bottom_up, res5_channels=2048, num_classes=80):
    """RetinaNet with Detectron2's settings, P3 to P7, on any backbone with res3 to res5."""
    backbone = _fpn_p3_p7(bottom_up, "res5", res5_channels)
    model = retinanet(backbone, list(P3_P7), list(P3_P7.values()), num_classes=num_classes)
    model.update(focal_loss_alpha=0.25, focal_loss_gamma=2.0, smooth_l1_beta=0.1)
    return model


def fcos_p3_p7(bottom_up, num_classes=80):
    """FCOS with GN, P3 to P7, on any backbone with res3 to res5."""
    backbone = _fpn_p3_p7(bottom_up, "p5", 256)
    model = fcos(backbone, list(P3_P7), num_classes=num_classes)
    model.head.norm = L(group_norm)()
    model.test_nms_thresh = 0.6
    return model


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
