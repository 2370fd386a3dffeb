"""The modules of LGD's teacher: values by hand, invariances, gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import make_targets, random_boxes
from lad.modeling.distill_losses.lgd.modules import (
    INTERACTIONS,
    AppearanceEncoder,
    KnowledgeMapper,
    LabelEncoder,
    RelationAdapter,
    TNet,
)
from lad.modeling.distill_losses.lgd.teacher import LabelGuidedTeacher

SIZE = (64, 96)
SHAPES = [(8, 12), (4, 6), (1, 1)]
CHANNELS = 16


def make_teacher(**options) -> LabelGuidedTeacher:
    torch.manual_seed(0)
    defaults = {"channels": CHANNELS, "num_classes": 3, "num_heads": 4, "label_width": 4}
    return LabelGuidedTeacher(**defaults | options)


def make_features(num_images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(num_images, CHANNELS, *shape, generator=generator).requires_grad_()
        for shape in SHAPES
    ]


BOXES = [[[5.0, 5, 40, 50], [50.0, 10, 90, 60], [10.0, 10, 30, 30]], [[20.0, 20, 60, 60]]]


def run(teacher, boxes, features):
    return teacher(features, make_targets(boxes), SIZE)


def close(found, expected):
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def set_linear(layer: nn.Linear, weight, bias):
    layer.weight.data = torch.tensor(weight)
    layer.bias.data = torch.tensor(bias)


def test_paper_sizes():
    encoder = LabelEncoder(size=84, channels=256, width=64)
    count = sum(p.numel() for p in encoder.parameters())
    assert round(count / 1e6, 2) == 4.89
    teacher = make_teacher(channels=256, num_classes=80, num_heads=8, label_width=64)
    assert round(sum(p.numel() for p in teacher.parameters()) / 1e6, 2) == 8.30


def test_tnet_multiplies_by_the_predicted_matrix():
    net = TNet(size=2, width=4)
    nn.init.zeros_(net.matrix.weight)
    net.matrix.bias.data = torch.tensor([1.0, 2, 3, 4])
    found = net(torch.tensor([[[10.0, 100]], [[1.0, 0]]]))
    assert found.tolist() == [[[310, 420]], [[1, 2]]]  # the vector from the left


def test_label_encoder_sees_its_own_image_only():
    torch.manual_seed(0)
    encoder = LabelEncoder(size=5, channels=8, width=4)
    descriptors = torch.randn(2, 3, 5, requires_grad=True)
    present = torch.tensor([[True, True, True], [True, True, False]])
    output = encoder(descriptors, present)
    assert output.shape == (2, 3, 8)
    order = [2, 0, 1]
    close(encoder(descriptors[:, order], present[:, order]), output[:, order])
    close(encoder(descriptors[1:, :2], present[1:, :2]), output[1:, :2])
    (gradient,) = torch.autograd.grad(output[1, :2].sum(), descriptors)
    assert gradient[0].abs().sum() == 0 and gradient[1, 2].abs().sum() == 0
    # Another label of the image changes an object's embedding.
    changed = descriptors.detach().clone()
    changed[0, 1] += 1
    assert not torch.allclose(encoder(changed, present)[0, 0], output[0, 0])


def test_appearance_is_the_mean_over_the_objects_cells():
    encoder = AppearanceEncoder(channels=2)
    encoder.layers = nn.Identity()
    feature = torch.arange(2 * 2 * 3.0).view(1, 2, 2, 3)
    cells = torch.tensor([[[[1.0, 1, 0], [0, 0, 0]], [[0.0, 0, 0], [0, 0, 0]]]])
    found = encoder([feature], [cells])
    assert found.shape == (1, 1, 2, 2)
    assert found[0, 0].tolist() == [[0.5, 6.5], [0, 0]], "no cells, no appearance"


def test_appearance_layers_normalize_a_whole_map():
    torch.manual_seed(0)
    encoder = AppearanceEncoder(channels=4)
    feature = torch.randn(2, 4, 5, 6)
    output = encoder.layers(feature)
    x = encoder.layers[0](feature)
    mean, var = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), unbiased=False, keepdim=True)
    close([output], [((x - mean) / (var + 1e-5).sqrt()).relu()])


def test_attention_stays_inside_an_image_and_ignores_absent_objects():
    torch.manual_seed(0)
    relation = RelationAdapter(channels=8, num_heads=2, interaction="student_guided")
    appearance = torch.randn(2, 2, 3, 8, requires_grad=True)
    label = torch.randn(2, 3, 8, requires_grad=True)
    present = torch.tensor([[True, True, True], [True, False, False]])
    output = relation(appearance, label, present)
    assert output.shape == (2, 2, 3, 8)
    gradients = torch.autograd.grad(output[:, 0].square().sum(), (appearance, label))
    assert gradients[0][:, 0].abs().sum() > 0 and gradients[1][0].abs().sum() > 0
    assert gradients[0][:, 1].abs().sum() == 0 and gradients[1][1].abs().sum() == 0
    (gradient,) = torch.autograd.grad(relation(appearance, label, present)[:, 1, 0].sum(), label)
    assert gradient[0].abs().sum() == 0 and gradient[1, 1:].abs().sum() == 0


def test_attention_equals_one_sequence_of_all_objects_with_a_mask():
    torch.manual_seed(0)
    relation = RelationAdapter(channels=8, num_heads=2, interaction="student_guided")
    appearance, label = torch.randn(1, 2, 2, 8), torch.randn(2, 2, 8)
    present = torch.tensor([[True, True], [True, False]])
    image = torch.tensor([0, 0, 1])
    other = image[:, None] != image
    query = appearance[0][present][None]
    key = relation.label(label[present])[None]
    expected, _ = relation.attention(query, key, key, attn_mask=other)
    close(relation(appearance, label, present)[0][present], expected[0])


@pytest.mark.parametrize("interaction", ["student_guided", "label_guided"])
def test_appearance_of_a_lone_object_matters_only_with_a_context_or_as_a_value(interaction):
    """Attention over one key is constant."""
    boxes = [[[5.0, 5, 40, 50]]]
    for context in (True, False):
        teacher, features = make_teacher(context=context, interaction=interaction), make_features(1)
        output = run(teacher, boxes, features)
        gradients = torch.autograd.grad(sum(x.square().sum() for x in output), features)
        seen = sum(x.abs().sum().item() for x in gradients) > 1e-6
        assert seen == (context or interaction == "label_guided")


def test_painting_adds_up_where_objects_overlap():
    mapper = KnowledgeMapper(channels=1, context=True)
    set_linear(mapper.instance, [[2.0]], [0.5])
    set_linear(mapper.context, [[1.0]], [0.0])
    nn.init.zeros_(mapper.spread.weight)
    mapper.spread.weight.data[0, 0, 1, 1] = 1.0
    nn.init.zeros_(mapper.spread.bias)
    mapper.refine = nn.Identity()
    cells = torch.zeros(1, 3, 1, 4)
    cells[0, 0, 0, :2] = cells[0, 1, 0, 1:3] = cells[0, 2] = 1
    found = mapper(torch.tensor([[[[1.0], [2.0], [-1.0]]]]), [cells])
    # 2.5 and 4.5 painted, -1 everywhere, ReLU.
    assert found[0].tolist() == [[[[1.5, 6.0, 3.5, 0.0]]]]


@pytest.mark.parametrize("count", [1, 40])
def test_spreading_equals_the_convolution_of_the_painted_map(count):
    torch.manual_seed(0)
    mapper = KnowledgeMapper(channels=4, context=False)
    mapper.refine = nn.Identity()
    objects = torch.randn(1, 2, count, 4)
    cells = (torch.rand(2, count, 5, 7) > 0.5).float()
    painted = torch.einsum("nmc,nmhw->nchw", mapper.instance(objects[0]), cells)
    close(mapper(objects, [cells]), [mapper.spread(painted).relu()])


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_each_interaction_uses_and_trains_all_its_parameters(interaction, context):
    teacher = make_teacher(interaction=interaction, context=context)
    output = run(teacher, BOXES, make_features(2))
    assert [x.shape for x in output] == [(2, CHANNELS, *shape) for shape in SHAPES]
    sum(x.square().mul(torch.randn_like(x)).sum() for x in output).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in teacher.parameters())


def test_maps_are_normalized():
    for x in run(make_teacher(), BOXES, make_features(2))[:2]:
        close(x.mean((1, 2, 3)), torch.zeros(2))
        close(x.var((1, 2, 3), unbiased=False), torch.ones(2))


@pytest.mark.parametrize("context", [True, False])
def test_the_order_of_objects_and_the_other_images_do_not_matter(context):
    teacher, features = make_teacher(context=context), make_features(2)
    targets = make_targets(BOXES)
    together = teacher(features, targets, SIZE)
    order = torch.tensor([2, 0, 1, 3])
    shuffled = targets._replace(boxes=targets.boxes[order], classes=targets.classes[order])
    close(teacher(features, shuffled, SIZE), together)
    for image in (0, 1):
        own = targets.image == image
        single = targets._replace(
            boxes=targets.boxes[own],
            classes=targets.classes[own],
            image=torch.zeros(int(own.sum()), dtype=torch.int64),
            image_sizes=targets.image_sizes[:1],
        )
        alone = teacher([x[image : image + 1] for x in features], single, SIZE)
        close(alone, [x[image : image + 1] for x in together])


def test_labels_change_the_maps():
    teacher, features = make_teacher(), make_features(2)
    targets = make_targets(BOXES)
    other = targets._replace(classes=(targets.classes + 1) % 3)
    for x, y in zip(
        teacher(features, targets, SIZE)[:2], teacher(features, other, SIZE)[:2], strict=True
    ):
        assert not torch.allclose(x, y)


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("boxes", [[[], []], [[], BOXES[0]], [random_boxes(500, *SIZE), []]])
def test_no_objects_and_five_hundred(boxes, context):
    teacher, features = make_teacher(context=context), make_features(2)
    output = run(teacher, boxes, features)
    assert all(x.isfinite().all() for x in output)
    sum(x.square().mul(torch.randn_like(x)).sum() for x in output).backward()
    assert all(p.grad.isfinite().all() for p in teacher.parameters())


@pytest.mark.parametrize("num_classes", [1, 400])
def test_any_number_of_classes(num_classes):
    teacher = make_teacher(num_classes=num_classes)
    targets = make_targets(BOXES, num_classes=num_classes)
    assert all(x.isfinite().all() for x in teacher(make_features(2), targets, SIZE))


def test_appearance_can_be_detached():
    for detach in (True, False):
        features = make_features(2)
        output = run(make_teacher(detach_appearance=detach), BOXES, features)
        loss = sum(F.relu(x).sum() for x in output)
        gradients = torch.autograd.grad(loss, features, allow_unused=True)
        assert all((x is None) == detach for x in gradients)


def test_bad_options_are_one_line():
    with pytest.raises(ValueError, match="interaction='stuGuided': choose one of student_guided"):
        make_teacher(interaction="stuGuided")
    with pytest.raises(ValueError, match="num_heads=3: it has to divide channels=16"):
        make_teacher(num_heads=3)
