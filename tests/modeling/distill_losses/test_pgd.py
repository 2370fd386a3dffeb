"""PGD: Gaussians, masks, attention and the terms by hand, and its identities."""

import math

import pytest
import torch

from helpers import (
    make_anchors,
    make_batch,
    make_paa,
    make_predictions,
    make_retinanet,
    make_targets,
)
from lad.modeling.distill_losses.pgd import PGD, gaussian_weights
from lad.modeling.distillation import Distillation
from lad.ops.boxes import paired_iou
from lad.structures import Targets

ANCHORS = make_anchors(64, 64)
SHAPES = [(8, 8), (4, 4), (2, 2)]
FEATURES = [torch.zeros(2, 1, *shape) for shape in SHAPES]
BATCH = make_batch([[[5.0, 5, 40, 50]], [[10.0, 10, 60, 50]]])


def test_gaussian_by_hand():
    """Cells at x = 0, 8, 16: mean 8, variance 128 / 3, so the outer ones have exp(-0.75)."""
    centers = torch.tensor([[0.0, 4], [8, 4], [16, 4], [24, 4]])
    quality = torch.tensor([[0.5, 0.9, 0.6, 0.1]])
    weights = gaussian_weights(quality, centers, topk=3)
    expected = torch.tensor([[math.exp(-0.75), 1.0, math.exp(-0.75), 0.0]])
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=1e-4)
    assert gaussian_weights(torch.zeros(0, 4), centers, 3).shape == (0, 4)
    # A single cell, and fewer cells than asked for.
    assert gaussian_weights(torch.tensor([[0.3]]), centers[:1], 9).tolist() == [[1.0]]


def slow_masks(predictions, targets, xi, topk=9):
    """(N, R) foreground and background, object by object."""
    num_images, num_anchors = predictions.scores.shape[:2]
    foreground = torch.zeros(num_images, num_anchors)
    background = torch.ones(num_images, num_anchors)
    centers = (ANCHORS.boxes[:, :2] + ANCHORS.boxes[:, 2:]) / 2
    for box, label, image in zip(targets.boxes, targets.classes, targets.image, strict=True):
        score = predictions.scores[image, :, label].sigmoid()
        iou = paired_iou(predictions.boxes()[image], box)
        weights = gaussian_weights((score ** (1 - xi) * iou**xi)[None], centers, topk)[0]
        inside = ((centers > box[:2]) & (centers < box[2:])).all(-1)
        foreground[image] = torch.maximum(foreground[image], weights * inside)
        background[image][inside] = 0
    return foreground, background


@pytest.mark.parametrize("num_objects", [0, 1, 70])
def test_masks_are_those_of_each_object(num_objects):
    """Seventy objects: more than are computed at a time."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(num_objects, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + 4 + 20 * torch.rand(num_objects, 2)], 1).tolist()
    targets = make_targets([[], boxes], [(64, 64)] * 2)
    predictions = make_predictions(2, ANCHORS).detach()
    masks = PGD().masks(predictions, targets, FEATURES)
    sizes = [height * width for height, width in SHAPES]
    for found, xi in ((masks.classes, 0.8), (masks.boxes, 0.6)):
        foreground, background = slow_masks(predictions, targets, xi)
        for own, expected, shape in zip(found, foreground.split(sizes, 1), SHAPES, strict=True):
            torch.testing.assert_close(own, expected.view(2, *shape))
    for own, expected, shape in zip(
        masks.background, background.split(sizes, 1), SHAPES, strict=True
    ):
        assert torch.equal(own, expected.view(2, *shape))
    assert all((x[0] == 1).all() for x in masks.background)


def test_objects_that_the_teacher_does_not_know_have_no_foreground():
    targets = make_targets([[[8.0, 8, 40, 40], [20.0, 20, 60, 60]]], [(64, 64)])
    predictions = make_predictions(1, ANCHORS).detach()
    first, both = (
        PGD().masks(predictions, targets, [f[:1] for f in FEATURES], known)
        for known in (torch.tensor([True, False, True]), None)
    )
    one = Targets(*(x[:1] for x in targets[:4]))
    alone = PGD().masks(predictions, one, [f[:1] for f in FEATURES])
    for own, expected in zip(first.classes + first.boxes, alone.classes + alone.boxes, strict=True):
        assert torch.equal(own, expected)
    for own, expected in zip(first.background, both.background, strict=True):
        assert torch.equal(own, expected)


def test_the_best_anchor_of_a_cell_counts():
    network = make_retinanet(0)
    output = network.run(network.preprocess_image(BATCH))
    targets = make_targets([[[5.0, 5, 40, 50]], [[10.0, 10, 60, 50]]], [(64, 96)] * 2)
    masks = PGD().masks(output.predictions.detach(), targets, output.features)
    assert [x.shape for x in masks.classes] == [x[:, 0].shape for x in output.features]
    weights = torch.cat([x.flatten(1) for x in masks.classes], 1)
    assert ((weights > 0).sum(1) <= 9).all() and (weights.amax(1) > 0.2).all()


def test_attention_has_mean_one():
    space, channels = PGD().attention(torch.randn(2, 3, 4, 5))
    torch.testing.assert_close(space.mean(dim=(1, 2)), torch.ones(2))
    torch.testing.assert_close(channels.mean(dim=1), torch.ones(2, 4, 5))
    # Two channels of 0 and T: softmax(0, 1).
    channels = PGD().attention(torch.tensor([0.0, -0.8]).view(1, 2, 1, 1))[1].flatten()
    expected = 2 * torch.tensor([1 / (1 + math.e), math.e / (1 + math.e)])
    torch.testing.assert_close(channels, expected)


def test_terms_by_hand():
    """One position with two equal teacher channels: all attentions of the teacher are 1."""
    loss = PGD()
    own, other = torch.tensor([3.0, 3]).view(1, 2, 1, 1), torch.ones(1, 2, 1, 1)
    one, none = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    # Two channels with difference 2: 8, divided by one cell.
    found = loss.class_term(own, other, one, none, weight=1.5)
    torch.testing.assert_close(found, torch.tensor(1.5 * 0.08 * 8))
    found = loss.class_term(own, other, none, 0.5 * one, weight=1.0)
    torch.testing.assert_close(found, torch.tensor(0.04 * 0.5 * 8))
    found = loss.box_term([(own, other)], [0.5 * one])
    torch.testing.assert_close(found, torch.tensor(1.6 * 0.08 * 0.5 * 4))
    # Attentions that differ: softmax(0, 1) against a half.
    own = torch.tensor([0.0, 0.8]).view(1, 2, 1, 1)
    gap = 2 * 2 * (math.e / (1 + math.e) - 0.5)
    found = loss.class_term(own, other, none, none, weight=1.0)
    torch.testing.assert_close(found, torch.tensor(0.0008 * gap))
    assert loss.box_term([(own, other)], [none]) == 0


def test_equal_networks_have_no_loss():
    pair = {"student": make_paa(0), "teacher": make_paa(0)}
    losses = Distillation(**pair, distill_losses=[PGD()]).train()(BATCH)
    assert losses["loss_pgd_cls"] == losses["loss_pgd_box"] == 0


def test_detectors_without_towers_are_refused():
    class Plain(type(make_paa())):
        towers = None

    student = make_paa(0)
    student.__class__ = Plain
    with pytest.raises(ValueError, match="PGD: Plain has no class and box tower"):
        Distillation(student=student, teacher=make_paa(1), distill_losses=[PGD()])
