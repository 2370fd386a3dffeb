"""Detectron2's Faster and Mask R-CNN as students of losses between features, such as LGD."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)

from lad.modeling.rcnn import RCNN

from .paa import IMAGENET_MEAN, IMAGENET_STD

_FEATURES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
_POOLED = ["p2", "p3", "p4", "p5"]


def faster_rcnn(bottom_up, num_classes=80, channels=256):
    """Faster R-CNN with FPN P2 to P6 on any backbone with features res2 to res5."""
    bottom_up.out_features = ["res2", "res3", "res4", "res5"]
    return L(RCNN)(
        backbone=L(FPN)(
            bottom_up=bottom_up,
            in_features="${.bottom_up.out_features}",
            out_channels=channels,
            top_block=L(LastLevelMaxPool)(),
        ),
        head_in_features=list(_FEATURES),
        proposal_generator=L(RPN)(
            in_features="${..head_in_features}",
            head=L(StandardRPNHead)(in_channels=channels, num_anchors=3),
            anchor_generator=L(DefaultAnchorGenerator)(
                sizes=[[8 * stride] for stride in _FEATURES.values()],
                aspect_ratios=[0.5, 1.0, 2.0],
                strides=list(_FEATURES.values()),
                offset=0.0,
            ),
            anchor_matcher=L(Matcher)(
                thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
            ),
            box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_topk=[2000, 1000],
            post_nms_topk=[1000, 1000],
            nms_thresh=0.7,
        ),
        roi_heads=L(StandardROIHeads)(
            num_classes=num_classes,
            batch_size_per_image=512,
            positive_fraction=0.25,
            proposal_matcher=L(Matcher)(
                thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False
            ),
            box_in_features=_POOLED,
            box_pooler=_pooler(7),
            box_head=L(FastRCNNConvFCHead)(
                input_shape=L(ShapeSpec)(channels=channels, height=7, width=7),
                conv_dims=[],
                fc_dims=[1024, 1024],
            ),
            box_predictor=L(FastRCNNOutputLayers)(
                input_shape=L(ShapeSpec)(channels=1024),
                test_score_thresh=0.05,
                box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
                num_classes="${..num_classes}",
            ),
        ),
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        input_format="RGB",
    )


def mask_rcnn(bottom_up, num_classes=80, channels=256):
    """Mask R-CNN; its loader has to give bit masks."""
    model = faster_rcnn(bottom_up, num_classes, channels)
    model.roi_heads.update(
        mask_in_features=_POOLED,
        mask_pooler=_pooler(14),
        mask_head=L(MaskRCNNConvUpsampleHead)(
            input_shape=L(ShapeSpec)(channels=channels, width=14, height=14),
            num_classes="${..num_classes}",
            conv_dims=[channels] * 5,
        ),
    )
    return model


def _pooler(size):
    return L(ROIPooler)(
        output_size=size,
        scales=[1 / _FEATURES[name] for name in _POOLED],
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
    )
