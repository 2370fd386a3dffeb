import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformLinear

from lad.ops.coders import DeltaCoder, DistanceCoder, DistributionCoder, TransformCoder

ANCHORS = torch.tensor([[0.0, 0.0, 64.0, 64.0], [8.0, 8.0, 40.0, 40.0]])
BOXES = torch.tensor([[3.0, 5.0, 50.0, 99.0], [1.0, 2.0, 30.0, 40.0]])
CODERS = {
    "delta": DeltaCoder(),
    "distance": DistanceCoder(units_per_side=8.0),
    "transform": TransformCoder(Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))),
    "linear": TransformCoder(Box2BoxTransformLinear(normalize_by_size=True)),
}
every = pytest.mark.parametrize("coder", CODERS.values(), ids=CODERS)


def test_deltas_by_hand():
    anchor = torch.tensor([0.0, 0.0, 10.0, 20.0])
    deltas = torch.tensor([1.0, -1.0, 5 * math.log(2), 0.0])
    # center (5, 10) moves by 0.1 x (10, -20); the width doubles
    assert DeltaCoder().decode(anchor, deltas).tolist() == pytest.approx([-4.0, -2.0, 16.0, 18.0])


def test_deltas_change_sizes_within_limits_both_ways():
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]]).expand(2, 4)
    boxes = DeltaCoder().decode(anchor, torch.tensor([[0, 0, 1e4, 0], [0, 0, -1e4, 0.0]]))
    widths = boxes[:, 2] - boxes[:, 0]
    assert widths.tolist() == pytest.approx([1000.0, 0.256], rel=1e-4)


def test_deltas_of_unit_deviation_are_detectron2s():
    coder = DeltaCoder(offset_std=1.0, size_std=1.0)
    deltas = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        coder.decode(ANCHORS, deltas), CODERS["transform"].decode(ANCHORS, deltas)
    )
    torch.testing.assert_close(
        coder.encode(ANCHORS, BOXES), CODERS["transform"].encode(ANCHORS, BOXES)
    )


def test_distances_by_hand():
    coder = DistanceCoder(units_per_side=8.0)
    anchor = torch.tensor([0.0, 0.0, 64.0, 64.0])  # center (32, 32), unit 8
    box = torch.tensor([24.0, 16.0, 40.0, 72.0])
    assert coder.encode(anchor, box).tolist() == [1, 2, 1, 5]
    assert coder.decode(anchor, torch.tensor([1.0, 2, 1, 5])).tolist() == box.tolist()
    assert coder.decode(anchor, torch.tensor([-1.0, 2, 1, 5])).tolist() == [32, 16, 40, 72]


def test_distributions_by_hand():
    coder = DistributionCoder(num_bins=3, units_per_side=8.0)
    anchor = torch.tensor([0.0, 0.0, 64.0, 64.0])
    certain = [-100.0, -100.0, 100.0]  # all in bin 2: 16 pixels
    even = [0.0, 0.0, 0.0]  # the mean of 0, 1 and 2: 8 pixels
    boxes = coder.decode(anchor, torch.tensor([*certain, *even, *even, *certain]))
    assert boxes.tolist() == pytest.approx([16, 24, 40, 48])
    far = coder.encode(anchor, torch.tensor([0.0, 40.0, 40.0, 40.0]))
    assert far.tolist() == pytest.approx([1.99, 0, 1, 1]), "inside the bins"


def test_a_one_hot_distribution_is_its_bin():
    coder, anchor = DistributionCoder(), torch.tensor([0.0, 0.0, 64.0, 64.0])
    bins = torch.tensor([0, 3, 7, 16])
    certain = torch.nn.functional.one_hot(bins, 17) * 200.0
    boxes = coder.decode(anchor, certain.flatten())
    assert boxes.tolist() == [32, 32 - 3 * 8, 32 + 7 * 8, 32 + 16 * 8]
    assert torch.equal(coder.logits(certain.flatten()), certain)
    inside = bins.clamp(max=15)  # the last bin is out of an encoded distance's reach
    boxes = DistanceCoder(units_per_side=8.0).decode(anchor, inside.float())
    assert coder.encode(anchor, boxes).tolist() == inside.tolist()


@every
def test_encoding_is_decodings_inverse(coder):
    decoded = coder.decode(ANCHORS, coder.encode(ANCHORS, BOXES))
    torch.testing.assert_close(decoded, BOXES, rtol=1e-5, atol=1e-4)


@every
def test_one_set_of_anchors_decodes_many_images(coder):
    regression = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([coder.decode(ANCHORS, image) for image in regression])
    torch.testing.assert_close(coder.decode(ANCHORS, regression), alone)


def test_distributions_decode_many_images():
    coder = DistributionCoder(num_bins=5)
    regression = torch.randn(3, 2, 20, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([coder.decode(ANCHORS, image) for image in regression])
    torch.testing.assert_close(coder.decode(ANCHORS, regression), alone)
    assert coder.decode(ANCHORS[:0], regression[0, :0]).shape == (0, 4)


@every
def test_moving_anchors_moves_boxes(coder):
    regression = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    moved = coder.decode(ANCHORS + 16, regression)
    torch.testing.assert_close(moved, coder.decode(ANCHORS, regression) + 16)


@every
def test_the_number_of_outputs_is_what_is_decoded(coder):
    assert coder.num_outputs == 4
    assert DistributionCoder(num_bins=5).num_outputs == 20


@every
def test_no_anchors(coder):
    assert coder.decode(ANCHORS[:0], torch.zeros(0, 4)).shape == (0, 4)
    assert coder.encode(ANCHORS[:0], BOXES[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    ("coder", "options", "message"),
    [
        (DistanceCoder, {"units_per_side": 0}, "units_per_side=0: it has to be positive"),
        (DistributionCoder, {"num_bins": 1}, "num_bins=1: it has to be at least 2"),
    ],
)
def test_bad_options_are_refused(coder, options, message):
    with pytest.raises(ValueError, match=message):
        coder(**options)
