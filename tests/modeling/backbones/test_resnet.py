"""ResNets of every kind against torchvision's, and deformable convolution against plain."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torchvision.models.resnet import Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from lad.checkpoint import load_state
from lad.modeling.backbones.deformable import DeformableBottleneckBlock, DeformableConv
from lad.modeling.backbones.resnet import build_resnet


def randomize_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.1, 0.5)


def test_resnext_gives_torchvisions_features():
    torch.manual_seed(0)
    reference = TorchvisionResNet(Bottleneck, [3, 4, 6, 3], groups=32, width_per_group=4).eval()
    randomize_norms(reference)
    model = build_resnet(depth=50, num_groups=32, width_per_group=4).eval()
    report = load_state(model, reference.state_dict(), complete=True)
    assert report.unused == ["fc.weight", "fc.bias"]
    image = torch.rand(1, 3, 64, 96)
    features = model(image)
    x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
    x = reference.layer1(x)
    for name in ("layer2", "layer3", "layer4"):
        x = getattr(reference, name)(x)
        stage = f"res{int(name[-1]) + 1}"
        torch.testing.assert_close(features[stage], x, rtol=1e-5, atol=1e-5)


def test_resnext101_64x4d_has_its_parameters():
    with torch.device("meta"):
        model = build_resnet(depth=101, num_groups=64, width_per_group=4)
    # torchvision's 83,455,272 less the classifier's 2048 x 1000 + 1000.
    frozen_norms = sum(
        m.weight.numel() + m.bias.numel()
        for m in model.modules()
        if isinstance(m, FrozenBatchNorm2d)
    )
    assert sum(p.numel() for p in model.parameters()) + frozen_norms == 83_455_272 - 2_049_000
    shapes = {name: (x.channels, x.stride) for name, x in model.output_shape().items()}
    assert shapes == {"res3": (512, 8), "res4": (1024, 16), "res5": (2048, 32)}


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_deformable_conv_without_offsets_is_half_a_plain_one(groups, stride):
    torch.manual_seed(0)
    conv = DeformableConv(8, 8, kernel_size=3, stride=stride, padding=1, groups=groups, bias=False)
    x = torch.randn(2, 8, 6, 7)
    plain = F.conv2d(x, conv.weight, stride=stride, padding=1, groups=groups)
    out = conv(x, torch.zeros(2, 27, *plain.shape[-2:]))
    torch.testing.assert_close(out, 0.5 * plain)  # sigmoid(0) weights each sample


def test_deformable_conv_samples_where_the_offsets_say():
    conv = DeformableConv(1, 1, kernel_size=3, padding=1, bias=False)
    nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 1, 1] = 2.0  # the center, element 4
    x = torch.arange(20.0).reshape(1, 1, 4, 5)
    control = torch.zeros(1, 27, 4, 5)
    control[:, 2 * 4] = 1.0  # one row down
    control[:, 2 * 4 + 1] = 0.5  # half a column to the right
    control[:, 18 + 4] = 1000.0  # full weight
    out = conv(x, control)
    # At row 1, column 2: between x[2, 2] = 12 and x[2, 3] = 13.
    assert out[0, 0, 1, 2].item() == 2 * 12.5
    assert out[0, 0, 3].eq(0).all()  # one row below the last is outside


def test_deformable_block_starts_at_its_cells_and_learns_offsets():
    torch.manual_seed(0)
    block = DeformableBottleneckBlock(8, 16, bottleneck_channels=4, norm="BN", stride=2)
    x = torch.randn(2, 8, 9, 11)
    assert block.conv2_offset(torch.relu(block.conv1(x))).eq(0).all()
    out = block(x)
    assert out.shape == (2, 16, 5, 6)
    out.square().sum().backward()
    assert block.conv2_offset.weight.grad.abs().sum() > 0


def test_deformable_conv_under_autocast():
    torch.manual_seed(0)
    block = DeformableBottleneckBlock(8, 8, bottleneck_channels=4, norm="BN")
    nn.init.normal_(block.conv2_offset.weight, std=0.1)
    x = torch.randn(1, 8, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(x)
    out.float().sum().backward()
    torch.testing.assert_close(out.float(), block(x), rtol=0.1, atol=0.1)
    assert block.conv2.weight.grad.isfinite().all()


def test_deformable_conv_of_an_empty_batch():
    conv = DeformableConv(4, 4, kernel_size=3, padding=1, bias=False)
    assert conv(torch.zeros(0, 4, 5, 5), torch.zeros(0, 27, 5, 5)).shape == (0, 4, 5, 5)


def test_deformable_stages():
    model = build_resnet(depth=50, width=8, deform_stages=("res4",), freeze_at=0)
    kinds = {
        name: isinstance(model.get_submodule(name)[0], DeformableBottleneckBlock)
        for name in model.stage_names
    }
    assert kinds == {"res2": False, "res3": False, "res4": True, "res5": False}
    assert model.res4[1].conv2_offset.weight.shape == (27, 32, 3, 3)
    assert all(x.isfinite().all() for x in model(torch.randn(1, 3, 64, 64)).values())


def test_frozen_stages():
    model = build_resnet(depth=18, width=8)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"res3", "res4", "res5"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "depth=20: choose one of"),
        ({"depth": 18, "num_groups": 32}, "depth=18 has no bottlenecks"),
        ({"depth": 34, "deform_stages": ["res5"]}, "depth=34 has no bottlenecks"),
        ({"depth": 50, "deform_stages": ["res6"]}, "deform_stages has res6: choose from"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        build_resnet(**options)
