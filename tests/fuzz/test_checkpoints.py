"""Random weights in any layout: one line, or each weight is where its name says."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import make_paa
from lad.checkpoint.convert import convert
from lad.checkpoint.load import load_state

MODEL = make_paa()
OURS = sorted(MODEL.state_dict())
MMDETECTION = [
    *(f"backbone.{x}" for x in ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight")),
    *(f"backbone.layer1.0.{x}" for x in ("downsample.0.weight", "bn3.bias", "conv2_offset.bias")),
    *("neck.lateral_convs.0.conv.weight", "neck.fpn_convs.3.conv.bias"),
    *(f"bbox_head.{x}" for x in ("atss_cls.weight", "gfl_reg.bias", "scales.0.scale", "odd.x")),
    *("bbox_head.cls_convs.0.conv.weight", "bbox_head.cls_convs.0.gn.bias"),
    *("backbone.stages.0.downsample.norm.weight", "backbone.stages.0.downsample.reduction.weight"),
]
RESNET = [
    "conv1.weight",
    "bn1.bias",
    "layer1.0.conv1.weight",
    "layer4.2.bn3.running_var",
    "fc.bias",
]
NAMES = st.one_of(
    st.sampled_from(OURS),
    st.sampled_from(MMDETECTION),
    st.sampled_from(RESNET),
    st.text(max_size=5),
)
PREFIXES = st.sampled_from(["", "", "student.", "teacher.", "teacher_model.", "module.", "model."])
SHAPES = st.one_of(st.none(), st.lists(st.integers(0, 5), max_size=4))


@st.composite
def states(draw):
    """A dict of tensors, each full of a number of its own."""
    state = {}
    for _ in range(draw(st.integers(0, 8))):
        name, shape = draw(NAMES), draw(SHAPES)
        if shape is None and name in OURS:
            shape = MODEL.state_dict()[name].shape
        state[draw(PREFIXES) + name] = torch.full(tuple(shape or ()), float(len(state) + 2))
    return state


@settings(max_examples=100, deadline=None, derandomize=True)
@given(states())
def test_loading_any_state(state):
    model, before = copy.deepcopy(MODEL), MODEL.state_dict()
    try:
        report = load_state(model, state)
    except ValueError as error:
        assert str(error) and len(str(error)) < 1500
        return
    after = model.state_dict()
    given_values = {float(x.flatten()[0]) for x in state.values() if x.numel()}
    for key, value in after.items():
        if key in report.matched:
            assert not value.numel() or set(value.flatten().tolist()) <= given_values
            if key in state:
                assert torch.equal(value, state[key])
        else:
            assert torch.equal(value, before[key]), f"{key} changed unannounced"
    assert report.matched


@settings(max_examples=100, deadline=None, derandomize=True)
@given(states())
def test_converting_any_state(state):
    try:
        found = convert(state)
    except ValueError as error:
        assert "nothing to convert" in str(error)
        return
    # No weight is lost without being named.
    assert len(found.weights) + len(found.unused) == len(state), found
