"""Files of MMDetection and of CoLAD's authors: written in their layout here, read back equal."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling.backbone import FPN
from timm.models.swin_transformer import PatchMerging
from torch import nn

from helpers import make_gfl, make_paa
from lad.checkpoint import load_state, load_weights, read_weights
from lad.checkpoint.convert import convert, from_mmdetection, is_mmdetection
from lad.cli import convert_checkpoint
from lad.modeling.backbones.resnet import LastLevelP6P7NoReLU, build_resnet
from lad.modeling.backbones.timm import TimmBackbone
from lad.modeling.heads import ConditionalObjectness, ImplicitObjectness, PAAHead

# Our names in MMDetection's: the way back of what convert does, written on its own.
RESNET = (
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    (r"^res(\d)\.(\d+)\.conv2_offset\.", r"layer{\1-1}.\2.conv2.conv_offset."),
    (r"^res(\d)\.(\d+)\.conv(\d)\.norm\.", r"layer{\1-1}.\2.bn\3."),
    (r"^res(\d)\.(\d+)\.conv(\d)\.", r"layer{\1-1}.\2.conv\3."),
    (r"^res(\d)\.(\d+)\.shortcut\.norm\.", r"layer{\1-1}.\2.downsample.1."),
    (r"^res(\d)\.(\d+)\.shortcut\.", r"layer{\1-1}.\2.downsample.0."),
)
SWIN = (
    (r"^body\.patch_embed\.proj\.", "patch_embed.projection."),
    (r"^body\.patch_embed\.norm\.", "patch_embed.norm."),
    (r"^body\.layers_(\d)\.downsample\.", r"stages.{\1-1}.downsample."),
    (r"^body\.layers_(\d)\.blocks\.(\d+)\.attn\.", r"stages.\1.blocks.\2.attn.w_msa."),
    (r"^body\.layers_(\d)\.blocks\.(\d+)\.mlp\.fc1\.", r"stages.\1.blocks.\2.ffn.layers.0.0."),
    (r"^body\.layers_(\d)\.blocks\.(\d+)\.mlp\.fc2\.", r"stages.\1.blocks.\2.ffn.layers.1."),
    (r"^body\.layers_(\d)\.blocks\.(\d+)\.norm(\d)\.", r"stages.\1.blocks.\2.norm\3."),
    (r"^norms\.res(\d)\.", r"norm{\1-2}."),
)
SWIN_AUTHORS = (
    (r"^body\.patch_embed\.", "patch_embed."),
    (r"^body\.layers_(\d)\.downsample\.", r"layers.{\1-1}.downsample."),
    (r"^body\.layers_(\d)\.blocks\.", r"layers.\1.blocks."),
    (r"^norms\.res(\d)\.", r"norm{\1-2}."),
)
DETECTOR = (
    (r"^backbone\.fpn_lateral(\d)\.", r"neck.lateral_convs.{\1-3}.conv."),
    (r"^backbone\.fpn_output(\d)\.", r"neck.fpn_convs.{\1-3}.conv."),
    (r"^backbone\.top_block\.p(\d)\.", r"neck.fpn_convs.{\1-3}.conv."),
    (r"^head\.class_tower\.(\d+)\.", r"bbox_head.cls_convs.{\1/3}.{\1%3}."),
    (r"^head\.box_tower\.(\d+)\.", r"bbox_head.reg_convs.{\1/3}.{\1%3}."),
    (r"^head\.class_logits\.", "bbox_head.atss_cls."),
    (r"^head\.deltas\.", "bbox_head.atss_reg."),
    (r"^head\.quality\.", "bbox_head.atss_centerness."),
    (r"^head\.scales\.", "bbox_head.scales."),
    (r"^head\.objectness\.coefficients\.", "bbox_head.coeff_conv."),
    (r"^head\.objectness\.objectness\.", "bbox_head.objectness."),
    (r"^head\.objectness\.offset\.", "bbox_head.obj_bias."),
)


def rename(key, patterns):
    for pattern, replacement in patterns:
        if re.match(pattern, key):
            key = re.sub(pattern, replacement, key)
            key = re.sub(r"\{(\d+)-(\d)\}", lambda m: str(int(m[1]) - int(m[2])), key)
            key = re.sub(r"\{(\d+)/3\}", lambda m: str(int(m[1]) // 3), key)
            return re.sub(r"\{(\d+)%3\}", lambda m: ("conv", "gn")[int(m[1]) % 3], key)
    raise KeyError(key)


def mmdetection_state(model, swin=SWIN):
    """The model's weights as MMDetection saves them."""
    state = {}
    for key, value in model.state_dict().items():
        prefix = "backbone.bottom_up."
        if key == "anchor_layout":
            continue
        if not key.startswith(prefix):
            state[rename(key, DETECTOR)] = value
            continue
        key = key.removeprefix(prefix)
        if swin is SWIN and "downsample" in key:
            # (column, row, channel) to (channel, row, column)
            value = value.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)
        state["backbone." + rename(key, RESNET + swin)] = value
    return state


class Network(nn.Module):
    """A detector's parts that have weights, of any backbone."""

    def __init__(self, bottom_up, objectness=None):
        super().__init__()
        features = ["res3", "res4", "res5"]
        top_block = LastLevelP6P7NoReLU(32, 32, in_feature="p5")
        self.backbone = FPN(bottom_up, features, 32, top_block=top_block)
        self.head = PAAHead(in_channels=32, num_classes=3, channels=32, objectness=objectness)


def randomize(model):
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_()
    return model


BACKBONES = {
    "R18": lambda: build_resnet(depth=18, width=8),
    "R50": lambda: build_resnet(depth=50, width=8),
    "R101": lambda: build_resnet(depth=101, width=8),
    "X101": lambda: build_resnet(depth=101, width=16, num_groups=4, width_per_group=16),
    "X101-DCN": lambda: build_resnet(
        depth=101,
        width=16,
        num_groups=4,
        width_per_group=16,
        deform_stages=["res3", "res4", "res5"],
    ),
    "Swin": lambda: TimmBackbone(name="swin_tiny_patch4_window7_224", norm_outputs=True),
}


def assert_same(state, expected):
    # MMDetection has no anchors; it counts batches as we do.
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


@pytest.mark.parametrize("name", BACKBONES)
def test_mmdetection_file_comes_back(name):
    torch.manual_seed(0)
    source = randomize(Network(BACKBONES[name]()))
    model = Network(BACKBONES[name]())
    state = mmdetection_state(source)
    report = load_state(model, state, complete=True)
    assert_same(model.state_dict(), source.state_dict())
    assert report.unused == report.mismatched == []
    assert_same(convert(state).weights, source.state_dict())


def test_mmdetections_gfl_comes_back():
    source, model = randomize(make_gfl(0)), make_gfl(1)
    state = {
        key.replace("atss_", "gfl_"): value for key, value in mmdetection_state(source).items()
    }
    assert state["bbox_head.gfl_reg.weight"].shape[0] == 68
    state["bbox_head.integral.project"] = torch.arange(17.0)
    report = load_state(model, state, complete=True)
    assert_same(model.state_dict(), source.state_dict())
    assert report.unused == report.mismatched == []


def test_swin_of_its_authors_in_a_detector_comes_back():
    source = randomize(Network(BACKBONES["Swin"]()))
    state = mmdetection_state(source, SWIN_AUTHORS)
    state["backbone.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    model = Network(BACKBONES["Swin"]())
    report = load_state(model, state, complete=True)
    assert_same(model.state_dict(), source.state_dict())
    assert report.unused == []


def test_mmdetections_patch_merging_is_timms_by_value():
    """MMDetection unfolds 2 x 2 patches, then normalizes and reduces them."""
    torch.manual_seed(0)
    norm, reduction = nn.LayerNorm(12), nn.Linear(12, 6, bias=False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 4, 6)
    expected = reduction(norm(F.unfold(x, 2, stride=2).transpose(1, 2)))
    prefix = "backbone.stages.1.downsample."
    state = {
        f"{prefix}norm.weight": norm.weight,
        f"{prefix}norm.bias": norm.bias,
        f"{prefix}reduction.weight": reduction.weight,
    }
    renamed, unused = from_mmdetection(state)
    assert unused == []
    merging = PatchMerging(3)
    ours = "backbone.bottom_up.body.layers_2.downsample."
    merging.load_state_dict({key.removeprefix(ours): value for key, value in renamed.items()})
    merged = merging(x.permute(0, 2, 3, 1)).flatten(1, 2)
    torch.testing.assert_close(merged, expected)


def test_deformable_names_of_old_files():
    names = [
        "backbone.layer3.22.conv2_offset.weight",
        "backbone.layer3.22.conv2.conv_offset.weight",
    ]
    for name in names:
        renamed, unused = from_mmdetection({name: torch.zeros(1)})
        assert list(renamed) == ["backbone.bottom_up.res4.22.conv2_offset.weight"]
        assert unused == []


class Pair(nn.Module):
    """Two networks as LAD and CoLAD have them."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher


def two_networks(prefix):
    """A student with COP, its teacher without, and their file in the layout of CoLAD's authors."""
    torch.manual_seed(0)
    student = randomize(make_paa(objectness=ConditionalObjectness(channels=32)))
    teacher = randomize(make_paa())
    state = mmdetection_state(student)
    state["bbox_head.objectness.weight"] = torch.zeros(1, 32, 3, 3)  # COP's files carry it
    state |= {prefix + key: value for key, value in mmdetection_state(teacher).items()}
    return student, teacher, state


PREFIXES = ["teacher_", "teacher.", "teacher_model."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_two_networks_go_to_a_two_network_model(prefix):
    student, teacher, state = two_networks(prefix)
    model = Pair(make_paa(objectness=ConditionalObjectness(channels=32)), make_paa())
    report = load_state(model, state, complete=True)
    assert_same(model.student.state_dict(), student.state_dict())
    assert_same(model.teacher.state_dict(), teacher.state_dict())
    assert report.unused == ["student.head.objectness.objectness.weight"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_first_of_two_networks_goes_to_a_plain_model(prefix):
    student, teacher, state = two_networks(prefix)
    model = make_paa(objectness=ConditionalObjectness(channels=32))
    report = load_state(model, state, complete=True)
    assert_same(model.state_dict(), student.state_dict())
    theirs = [key for key in report.unused if key.startswith(prefix)]
    assert len(theirs) == len(mmdetection_state(teacher))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_second_of_two_networks_goes_to_a_plain_model_that_asks_for_it(prefix, tmp_path):
    _, teacher, state = two_networks(prefix)
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    model = make_paa()
    load_weights(model, str(tmp_path / "model.pth"), complete=True, network="teacher")
    assert_same(model.state_dict(), teacher.state_dict())


def test_iop_comes_back_and_files_of_heads_without_quality_are_loaded():
    torch.manual_seed(0)
    source = randomize(make_paa(objectness=ImplicitObjectness(channels=32)))
    state = mmdetection_state(source)
    model = make_paa(objectness=ImplicitObjectness(channels=32), quality=False)
    report = load_state(model, state, complete=True)
    assert report.unused == ["head.quality.weight", "head.quality.bias"]
    assert torch.equal(model.head.objectness.offset.weight, source.head.objectness.offset.weight)


def test_recognition():
    assert is_mmdetection({"bbox_head.atss_cls.weight": torch.zeros(1)})
    assert not is_mmdetection({})
    with pytest.raises(ValueError, match="nothing to convert: its keys .* head.deltas.weight"):
        convert({"head.deltas.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="nothing to convert"):
        convert({})


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["convert_checkpoint.py", *map(str, arguments)])
    return convert_checkpoint.main()


def test_tool_writes_a_file_that_loads(tmp_path, monkeypatch, capsys):
    student, teacher, state = two_networks("teacher_")
    torch.save({"state_dict": state, "meta": {"epoch": 12}}, tmp_path / "in.pth")
    output = tmp_path / "new" / "out.pth"
    assert run_tool(monkeypatch, tmp_path / "in.pth", output) == 0
    weights = read_weights(str(output))
    expected = len(student.state_dict()) + len(teacher.state_dict()) - 2 + 1
    assert len(weights) == expected
    text = capsys.readouterr().out
    assert "two detectors in MMDetection's layout" in text
    assert f"{expected} weights" in text
    model = Pair(make_paa(objectness=ConditionalObjectness(channels=32)), make_paa())
    load_state(model, weights, complete=True)
    assert_same(model.teacher.state_dict(), teacher.state_dict())


@pytest.mark.parametrize("case", ["output exists", "no input", "ours", "objects"])
def test_tool_refuses(case, tmp_path, monkeypatch, capsys):
    source, output = tmp_path / "in.pth", tmp_path / "out.pth"
    model = make_paa()
    if case == "ours":
        torch.save(model.state_dict(), source)
    elif case != "no input":
        meta = nn.Identity() if case == "objects" else None
        torch.save({"state_dict": mmdetection_state(model), "meta": meta}, source)
    if case == "output exists":
        output.write_text("precious")
    with pytest.raises(SystemExit) as error:
        run_tool(monkeypatch, source, output)
    assert error.value.code == 2
    message = {
        "output exists": "out.pth exists: remove it",
        "no input": "there is no such file",
        "ours": "nothing to convert",
        "objects": "more than tensors.*torch.nn.modules.linear.Identity",
    }[case]
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))
    assert not output.exists() or output.read_text() == "precious"
    if case == "objects":
        assert run_tool(monkeypatch, source, output, "--unsafe") == 0
        load_state(make_paa(), read_weights(str(output)), complete=True)
