import pytest
import torch

from lad.modeling.heads import ConditionalObjectness, ImplicitObjectness, PAAHead

FEATURES = [torch.rand(2, 8, 6, 5), torch.rand(2, 8, 3, 3)]


def make_head(**options) -> PAAHead:
    return PAAHead(in_channels=8, num_classes=4, num_levels=2, channels=32, num_convs=1, **options)


def test_maps_of_each_level_come_from_their_towers():
    head = make_head()
    scores, deltas, quality = head(FEATURES)
    assert [x.shape for x in scores] == [(2, 4, 6, 5), (2, 4, 3, 3)]
    assert torch.equal(scores[0], head.class_logits(head.class_tower(FEATURES[0])))
    box_features = head.box_tower(FEATURES[1])
    assert torch.equal(deltas[1], head.scales[1](head.deltas(box_features)))
    assert torch.equal(quality[1], head.quality(box_features))


def test_initial_class_probability_is_the_prior():
    torch.manual_seed(0)
    scores, _, _ = make_head(prior_prob=0.01)(FEATURES)
    assert scores[0].sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("quality", [True, False])
@pytest.mark.parametrize("objectness", [None, ConditionalObjectness, ImplicitObjectness])
def test_parts_combine(quality, objectness):
    part = objectness(channels=32) if objectness else None
    head = make_head(quality=quality, objectness=part)
    scores, _, quality_maps = head(FEATURES)
    assert head.activation == ("none" if objectness else "sigmoid")
    assert len(quality_maps) == (2 if quality else 0)
    if objectness:
        assert all(x.min() >= 0 and x.max() <= 1 for x in scores)


def test_conditional_objectness_by_hand():
    part = ConditionalObjectness(channels=1)
    torch.nn.init.zeros_(part.coefficients.weight)  # every coefficient is 1/2
    logits = torch.full((1, 1, 3, 3), 100.0)  # probability 1; outside counts 1/2
    scores = part(logits, torch.zeros(1, 1, 3, 3))[0, 0]
    assert scores[1, 1].item() == pytest.approx(0.5)
    assert scores[0, 0].item() == pytest.approx((4 + 5 / 2) / 2 / 9)


def test_conditional_coefficients_point_at_their_neighbor():
    part = ConditionalObjectness(channels=1)
    torch.nn.init.zeros_(part.coefficients.weight)
    with torch.no_grad():
        part.coefficients.bias.fill_(-100.0)
        part.coefficients.bias[2] = 100.0  # the neighbor up and to the right
    logits = torch.full((1, 1, 3, 3), -100.0)
    logits[0, 0, 0, 2] = 100.0
    scores = part(logits, torch.zeros(1, 1, 3, 3))[0, 0]
    assert scores[1, 1].item() == pytest.approx(1 / 9)
    assert scores[1, 0].item() == pytest.approx(0.0)


def test_implicit_objectness_by_hand():
    part = ImplicitObjectness(channels=1)
    for conv, bias in ((part.objectness, 0.0), (part.offset, 0.0)):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.constant_(conv.bias, bias)
    logits = torch.tensor([100.0, 0.0, -100.0]).view(1, 3, 1, 1)
    # relu(p - 1/2) x 1/2
    assert part(logits, torch.zeros(1, 1, 1, 1)).flatten().tolist() == pytest.approx([0.25, 0, 0])


def test_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_size=4"):
        ConditionalObjectness(channels=8, kernel_size=4)


def test_number_of_levels_must_match():
    with pytest.raises(ValueError, match="made for 2 levels but gets 1"):
        make_head()(FEATURES[:1])


def test_empty_batch():
    assert make_head()([x[:0] for x in FEATURES])[0][0].shape == (0, 4, 6, 5)
