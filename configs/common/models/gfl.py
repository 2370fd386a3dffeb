"""GFL detectors: joint class and quality scores, boxes as distributions, ATSS."""

from detectron2.config import LazyCall as L

from lad.modeling.heads import GFLHead
from lad.modeling.losses import GFLLosses
from lad.ops.coders import DistributionCoder

from .assigners import use_atss
from .paa import paa_resnet, paa_small


def gfl(detector):
    """Turns a PAA detector, on any backbone, into GFL; returns it.

    Distances are in strides, up to ``num_bins`` - 1. Boxes are not voted for.
    """
    detector.head._target_ = GFLHead
    detector.head.update(num_bins=17, quality=False)
    detector.coder = L(DistributionCoder)(
        num_bins="${..head.num_bins}", units_per_side="${..anchor_generator.scale}"
    )
    detector.losses = L(GFLLosses)()
    detector.postprocessor.score_voting = False
    return use_atss(detector)


def gfl_resnet(depth, num_classes=80):
    """GFL on a pre-trained ResNet of 18, 34, 50, 101 or 152 layers."""
    return gfl(paa_resnet(depth, num_classes))


def gfl_small(depth=10, width=32, channels=32, num_classes=10):
    """A small GFL detector to train from scratch, with the anchors of `paa_small`."""
    return gfl(paa_small(depth, width, channels, num_classes))
