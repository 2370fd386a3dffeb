"""Weights of every origin, and one-line errors for useless files."""

from __future__ import annotations

import logging
import pickle
import re

import numpy as np
import pytest
import torch
from detectron2.modeling.backbone import ResNet
from torch import nn
from torchvision.models import resnet18

from helpers import make_fcos, make_paa, make_retinanet
from lad.checkpoint import load_initial_weights, load_state, load_weights, read_weights
from lad.checkpoint.convert import resnet_key
from lad.modeling.backbones.resnet import build_resnet
from lad.modeling.distillation import Distillation
from lad.modeling.network import ModelInfo


class Detector(nn.Module):
    """A module with the weights' names of a PAA detector."""

    def __init__(self, classes=3, anchors=((8, 64), (16, 128))):
        super().__init__()
        self.backbone = nn.ModuleDict({"bottom_up": build_resnet(depth=18, width=64)})
        self.head = nn.Linear(4, classes)
        self.register_buffer("anchor_layout", torch.tensor(anchors))


class Pair(nn.Module):
    """Two networks with a checkpoint each, the teacher frozen."""

    def __init__(self, student="", teacher="", save_teacher=True):
        super().__init__()
        self.student, self.teacher = Detector(), Detector().requires_grad_(False)
        self.checkpoints = {"student": student, "teacher": teacher}
        if not save_teacher:
            self.register_state_dict_post_hook(drop_teacher)

    def info(self):
        networks = {"student": self.student, "teacher": self.teacher}
        return ModelInfo(networks, {"": "student"}, self.checkpoints)


def drop_teacher(module, state, prefix, _):
    for key in [k for k in state if k.startswith("teacher.")]:
        del state[key]


@pytest.fixture(scope="module")
def torchvision_state():
    torch.manual_seed(0)
    model = resnet18()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    return model.eval().state_dict()


def bottom_up(model: nn.Module) -> ResNet:
    return model.backbone["bottom_up"]


def save(content, path):
    torch.save(content, path)
    return str(path)


def dump(content, path, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return str(path)


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


def assert_features_are_torchvisions(model, torchvision_state):
    reference = resnet18()
    reference.load_state_dict(torchvision_state)
    reference.eval()
    image = torch.rand(1, 3, 64, 64)
    x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
    for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
        x = layer(x)
    torch.testing.assert_close(bottom_up(model).eval()(image)["res5"], x, rtol=1e-4, atol=1e-4)


def test_torchvision_resnet_goes_to_the_backbone(torchvision_state, tmp_path):
    model = Detector()
    report = load_weights(model, save(torchvision_state, tmp_path / "resnet18.pth"))
    assert len(report.matched) == len(bottom_up(model).state_dict())
    assert report.unused == ["fc.weight", "fc.bias"]
    assert report.missing == ["head.weight", "head.bias"]
    assert report.mismatched == []
    assert_features_are_torchvisions(model, torchvision_state)


def detectron2_pickle(state):
    """As Detectron2's tool converts torchvision's files."""
    names = {key: resnet_key(key) or f"stem.{key}" for key in state}
    return {
        "model": {names[k]: v.numpy() for k, v in state.items()},
        "__author__": "torchvision",
        "matching_heuristics": True,
    }


@pytest.mark.parametrize("protocol", [2, 4])
def test_detectron2_pickle_goes_to_the_backbone(torchvision_state, tmp_path, protocol):
    model = Detector()
    content = detectron2_pickle(torchvision_state)
    report = load_weights(model, dump(content, tmp_path / "R-18.pkl", protocol))
    assert report.unused == ["backbone.bottom_up.stem.fc.weight", "backbone.bottom_up.stem.fc.bias"]
    assert_features_are_torchvisions(model, torchvision_state)


def test_caffe2_pickle_goes_to_the_backbone(tmp_path, caplog):
    model = Detector()
    kernel = np.random.rand(64, 3, 7, 7).astype("float32")
    blobs = {
        "conv1_w": kernel,
        "conv1_w_momentum": kernel,
        "res_conv1_bn_s": np.full(64, 2.0, "float32"),
        "res2_0_branch2a_w": np.full((64, 64, 3, 3), 3.0, "float32"),
    }
    with caplog.at_level(logging.WARNING):
        report = load_weights(model, dump({"blobs": blobs}, tmp_path / "R-18.pkl"))
    stem = bottom_up(model).stem.conv1
    assert np.array_equal(stem.weight.detach().numpy(), kernel)
    assert stem.norm.weight.eq(2).all()
    assert bottom_up(model).res2[0].conv1.weight.eq(3).all()
    assert len(report.matched) == 3
    assert "BGR" in caplog.text


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s}])
def test_own_checkpoint(tmp_path, wrap):
    source, model = Detector(), Detector()
    file = save(wrap(source.state_dict()), tmp_path / "model.pth")
    report = load_weights(model, file, complete=True)
    assert same(model.state_dict(), source.state_dict())
    assert report.missing == report.unused == report.mismatched == []


def test_wrapped_checkpoint(tmp_path):
    source, model = Detector(), Detector()
    state = {f"module.{k}": v for k, v in source.state_dict().items()}
    load_weights(model, save({"model": state}, tmp_path / "model.pth"), complete=True)
    assert same(model.state_dict(), source.state_dict())


def test_averaged_weights_are_preferred(tmp_path):
    content = {
        "model": {"a": torch.zeros(1)},
        "trainer": {"iteration": 3, "hooks": {"EMAHook": {"model": {"a": torch.ones(1)}}}},
    }
    assert read_weights(save(content, tmp_path / "model.pth"))["a"].item() == 1
    content["model"]["b"] = torch.full((1,), 2.0)  # not trained: not among the averages
    weights = read_weights(save(content, tmp_path / "model.pth"))
    assert (weights["a"].item(), weights["b"].item()) == (1, 2)
    del content["trainer"]["hooks"]
    assert read_weights(save(content, tmp_path / "model.pth"))["a"].item() == 0


def test_other_classes_keep_their_initial_head(caplog):
    model, source = Detector(classes=3), Detector(classes=5)
    head = model.head.weight.clone()
    report = load_state(model, source.state_dict())
    assert report.mismatched == ["head.weight", "head.bias"]
    assert torch.equal(model.head.weight, head)
    with pytest.raises(ValueError, match=r"other shapes \(other classes .*head.weight, head.bias"):
        load_state(model, source.state_dict(), complete=True)


def test_missing_weights_where_all_are_needed():
    state = Detector().state_dict()
    del state["head.bias"]
    with pytest.raises(ValueError, match="it lacks 1 of the model's weights: head.bias"):
        load_state(Detector(), state, complete=True)
    del state["anchor_layout"]  # of other projects' checkpoints
    state["head.bias"] = torch.zeros(3)
    load_state(Detector(), state, complete=True)


@pytest.mark.parametrize("anchors", [((8, 32), (16, 64)), ((8, 64),)])
def test_other_anchors_are_refused(anchors):
    model = Detector()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"other anchors.*has \[\[8, 64\], \[16, 128\]\]"):
        load_state(model, Detector(anchors=anchors).state_dict())
    assert same(model.state_dict(), before)


def test_backbone_for_a_model_without_prefix(torchvision_state):
    report = load_state(build_resnet(depth=18), torchvision_state, complete=True)
    assert "stem.conv1.weight" in report.matched


def test_backbone_for_two_networks_is_refused(torchvision_state):
    with pytest.raises(ValueError, match="model has several .*model.student_checkpoint"):
        load_state(Pair(), torchvision_state)


def test_nothing_fits(tmp_path):
    file = save({"model": {"other": torch.zeros(1)}}, tmp_path / "model.pth")
    message = f"train.init_checkpoint={re.escape(file)}: none of its weights fits .* it has other,"
    with pytest.raises(ValueError, match=message):
        load_weights(Detector(), file, source="train.init_checkpoint")


def test_missing_file():
    with pytest.raises(FileNotFoundError, match="init=nowhere.pth: there is no such file"):
        load_weights(Detector(), "nowhere.pth", source="init")


@pytest.mark.parametrize("name", ["model.pth", "model.pkl"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x04}."])
def test_file_that_is_no_checkpoint(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ValueError, match="no checkpoint|holds") as error:
        read_weights(str(file))
    assert "\n" not in str(error.value)


class Attack:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("import lad; lad.attacked = True",))


@pytest.mark.parametrize(("write", "name"), [(save, "model.pth"), (dump, "model.pkl")])
def test_file_that_runs_code_is_refused(tmp_path, write, name):
    import lad

    file = write({"model": {"a": np.zeros(1), "b": Attack()}}, tmp_path / name)
    with pytest.raises(ValueError, match="more than tensors"):
        read_weights(file)
    assert not hasattr(lad, "attacked")


def test_trusted_file_may_hold_objects(tmp_path):
    content = {"model": {"a": np.ones(1)}, "meta": Detector}
    file = dump(content, tmp_path / "model.pkl")
    with pytest.raises(ValueError, match=r"more than tensors, arrays and numbers \(.*Detector\)"):
        read_weights(file)
    assert read_weights(file, trusted=True)["a"].item() == 1


def test_networks_with_checkpoints_of_their_own(torchvision_state, tmp_path):
    teacher = Detector()
    model = Pair(
        student=save(torchvision_state, tmp_path / "resnet.pth"),
        teacher=save({"model": teacher.state_dict()}, tmp_path / "teacher.pth"),
    )
    load_initial_weights(model, "")
    assert same(model.teacher.state_dict(), teacher.state_dict())
    assert_features_are_torchvisions(model.student, torchvision_state)


def test_frozen_network_has_to_be_complete(torchvision_state, tmp_path):
    file = save(torchvision_state, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="model.teacher_checkpoint=.*: it lacks 2 of the model's"):
        load_initial_weights(Pair(teacher=file), "")


@pytest.mark.parametrize("save_teacher", [True, False])
def test_resumed_training_loads_only_what_checkpoints_leave_out(tmp_path, save_teacher):
    teacher = Detector()
    file = save({"model": teacher.state_dict()}, tmp_path / "teacher.pth")
    model = Pair(student="not looked at", teacher=file, save_teacher=save_teacher)
    resumed = save(
        {"model": model.state_dict(), "trainer": {"iteration": 9}}, tmp_path / "model_0000009.pth"
    )
    load_initial_weights(model, "not looked at", resume_from=resumed)
    assert same(model.teacher.state_dict(), teacher.state_dict()) != save_teacher


def test_resumed_training_needs_the_weights_that_its_checkpoint_lacks(tmp_path):
    model = Pair(save_teacher=False)
    content = {"model": model.state_dict(), "trainer": {"iteration": 9}}
    with pytest.raises(ValueError, match="--resume=.* frozen teacher .*set model.teacher_checkpoi"):
        load_initial_weights(model, "", resume_from=save(content, tmp_path / "model.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no checkpoint", "is no checkpoint, or is damaged"),
        (b"", "is no checkpoint, or is damaged"),
        ({"model": {}}, "holds weights, but not the state of a training"),
    ],
)
def test_training_cannot_be_resumed_from_anything(tmp_path, content, message):
    file = tmp_path / "model.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        save(content, file)
    with pytest.raises(ValueError, match=message):
        load_initial_weights(Pair(), "", resume_from=str(file))


def test_whole_checkpoint_gives_the_teacher_too_or_is_refused(tmp_path):
    whole = Pair()
    file = save({"model": whole.state_dict()}, tmp_path / "whole.pth")
    model = Pair(save_teacher=False)
    load_initial_weights(model, file)
    assert same(model.teacher.state_dict(), whole.teacher.state_dict())
    half = save({"model": Pair(save_teacher=False).state_dict()}, tmp_path / "half.pth")
    with pytest.raises(ValueError, match="frozen teacher .*: set model.teacher_checkpoint"):
        load_initial_weights(Pair(), half)


def test_random_teacher_has_to_be_asked_for(caplog):
    message = "model.teacher_checkpoint is missing: the frozen teacher would have random weights"
    with pytest.raises(ValueError, match=message):
        load_initial_weights(Pair(), "")
    load_initial_weights(Pair(teacher="random"), "")
    assert "model.teacher_checkpoint=random: the frozen teacher has random weights" in caplog.text


def test_one_network_alone_can_be_demanded(tmp_path):
    student = Pair(save_teacher=False)
    file = save({"model": student.state_dict()}, tmp_path / "student.pth")
    model = Pair()
    load_weights(model, file, complete=["student"])
    assert same(model.student.state_dict(), student.student.state_dict())
    with pytest.raises(ValueError, match=r"lacks .* teacher\."):
        load_weights(model, file, complete=["student", "teacher"])


@pytest.mark.parametrize("make", [make_paa, make_retinanet, make_fcos])
def test_detectors_of_other_classes_start_a_training(tmp_path, make, caplog):
    start = make(1, num_classes=5).state_dict()
    file = save({"model": start}, tmp_path / "student.pth")
    for student, model, path in (
        (twin := make(), Distillation(student=twin, student_checkpoint=file), ""),
        (twin := make(), twin, file),
    ):
        initial = {k: v.clone() for k, v in student.state_dict().items()}
        load_initial_weights(model, path)
        changed = {k for k, v in student.state_dict().items() if not torch.equal(v, start[k])}
        assert changed == {
            k for k in start if k.startswith(("head.class_logits", "head.cls_score"))
        }
        assert all(torch.equal(student.state_dict()[key], initial[key]) for key in changed)
    (line,) = {x.getMessage() for x in caplog.records if "other classes" in x.getMessage()}
    assert "2 weights are new, since the file has other classes: head." in line
    with pytest.raises(ValueError, match="another number of classes than the model .*num_classes"):
        load_weights(make(), file, complete=True)
