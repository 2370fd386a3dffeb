"""timm's models as backbones: their features, sizes, weights and frozen parts."""

from __future__ import annotations

import pytest
import timm
import torch
from detectron2.modeling.backbone import FPN
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn
from torchvision.models.swin_transformer import SwinTransformerBlock as TorchvisionSwinBlock

from lad.checkpoint import load_state
from lad.modeling.backbones.resnet import build_resnet
from lad.modeling.backbones.timm import PaddedSwinBlock, TimmBackbone, pixel_statistics

SWIN = "swin_tiny_patch4_window7_224"


@pytest.fixture(scope="module")
def swin():
    torch.manual_seed(0)
    model = timm.create_model(SWIN, strict_img_size=False, always_partition=True).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def swin_features(model, image):
    """Outputs of timm's stages 2 to 4, channels first."""
    x, features = model.patch_embed(image), []
    for stage in model.layers:
        x = stage(x)
        features.append(x.permute(0, 3, 1, 2))
    return features[1:]


def authors_layout(state):
    """As Swin's authors save it: patches are merged at the end of a stage, buffers included."""
    renamed = {}
    for key, value in state.items():
        if ".downsample." in key:
            stage = int(key.split(".")[1])
            key = key.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
        renamed[key.replace("head.fc.", "head.")] = value
    renamed["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    renamed["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return renamed


@pytest.mark.parametrize("layout", [dict, authors_layout])
@torch.no_grad()
def test_swin_gives_timms_features(swin, layout):
    backbone = TimmBackbone(name=SWIN).eval()
    report = load_state(backbone, layout(swin.state_dict()), complete=True)
    assert {key.split(".")[0] for key in report.unused} == {"norm", "head"}
    image = torch.rand(2, 3, 224, 224)  # whole windows on every stage
    features = backbone(image)
    for x, expected in zip(features.values(), swin_features(swin, image), strict=True):
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


def test_swin_file_of_the_pyramid_and_into_a_detector(swin):
    bare = TimmBackbone(name=SWIN)
    load_state(bare, swin.state_dict())
    fpn = FPN(TimmBackbone(name=SWIN, norm_outputs=True), ["res3", "res4", "res5"], 8)
    report = load_state(fpn, bare.body.state_dict())
    body = fpn.bottom_up.body.state_dict()
    assert all(torch.equal(value, body[key]) for key, value in bare.body.state_dict().items())
    assert report.unused == []
    own = ("bottom_up.norms.", "fpn_")
    assert report.missing and all(key.startswith(own) for key in report.missing)


@torch.no_grad()
def test_swin_block_on_parts_of_windows_is_torchvisions():
    """Windows of 7 on a 10 x 13 map: padded first and shifted then."""
    torch.manual_seed(0)
    expected = TorchvisionSwinBlock(8, 2, [7, 7], [3, 3]).eval()
    for parameter in expected.parameters():
        nn.init.normal_(parameter, std=0.5)
    block = PaddedSwinBlock(
        8, (14, 14), 2, window_size=7, shift_size=3, always_partition=True, dynamic_mask=True
    ).eval()
    names = {"mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2"}
    state = {}
    for key, value in expected.state_dict().items():
        for theirs, ours in names.items():
            key = key.replace(theirs, ours)
        if not key.endswith("relative_position_index"):
            state[key] = value
    block.load_state_dict(state)
    x = torch.randn(2, 10, 13, 8)
    torch.testing.assert_close(block(x), expected(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (64, 160), (70, 33)])
@pytest.mark.parametrize("name", [SWIN, "test_convnext", "test_efficientnet", "test_resnet"])
@torch.no_grad()
def test_maps_have_the_sizes_of_the_resnets(name, size):
    features = ["res3", "res4", "res5"]
    backbone = TimmBackbone(name=name, out_features=features).eval()
    resnet = build_resnet(depth=18, width=8).eval()
    assert backbone.size_divisibility == 32
    image = torch.rand(2, 3, *size)
    padded = torch.rand(2, 3, *(-(-x // 32) * 32 for x in size))
    ours, theirs = backbone(image), resnet(padded)
    for key in features:
        assert ours[key].shape[-2:] == theirs[key].shape[-2:]
        assert ours[key].shape[1] == backbone.output_shape()[key].channels
        assert backbone.output_shape()[key].stride == resnet.output_shape()[key].stride


def test_every_parameter_gets_a_gradient():
    """Data-parallel training fails on parameters without."""
    for name in ("test_efficientnet", "test_convnext", SWIN):
        backbone = TimmBackbone(name=name, out_features=["res3", "res2"], norm_outputs=True)
        features = backbone(torch.rand(2, 3, 64, 64))
        assert list(features) == ["res2", "res3"]
        sum(x.square().sum() for x in features.values()).backward()
        assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_output_norms_are_layer_norms_over_channels():
    for name in ("test_convnext", SWIN):
        backbone = TimmBackbone(name=name, norm_outputs=True).eval()
        for x in backbone(torch.rand(1, 3, 64, 64)).values():
            assert x.mean(dim=1).abs().max() < 1e-4
            assert (x.std(dim=1, unbiased=False) - 1).abs().max() < 1e-2


@torch.no_grad()
def test_swin_with_images_alone_and_in_a_batch():
    backbone = TimmBackbone(name=SWIN, drop_path_rate=0.5).eval()
    images = torch.rand(2, 3, 64, 96)
    together = backbone(images)
    for index in range(2):
        alone = backbone(images[index : index + 1])
        for key, x in alone.items():
            torch.testing.assert_close(together[key][index], x[0], rtol=1e-4, atol=1e-4)


def test_drop_path_rate():
    def rates(value):
        body = TimmBackbone(name=SWIN, drop_path_rate=value).body
        return [m.drop_prob for m in body.modules() if type(m).__name__ == "DropPath"]

    assert max(rates(0.2)) == pytest.approx(0.2)
    assert rates(0.0) == []


def test_frozen_parts_and_fixed_norms():
    backbone = TimmBackbone(name="test_resnet", freeze_at=2, norm="FixedBN").train()
    trained = {n.split(".")[1] for n, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert backbone.body.layer2.training
    assert not any(m.training for m in backbone.body.layer1.modules())


def test_batch_norms_of_frozen_parts_alone_stay():
    backbone = TimmBackbone(name="test_efficientnet", freeze_at=2).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone(torch.rand(2, 3, 64, 64))
    changed = {
        ".".join(k.split(".")[1:3])
        for k, v in backbone.state_dict().items()
        if not torch.equal(v, before[k])
    }
    frozen = {
        ".".join(n.split(".")[1:3]) for n, p in backbone.named_parameters() if not p.requires_grad
    }
    assert changed and frozen and not changed & frozen
    assert "conv_stem.weight" in frozen


@pytest.mark.parametrize("name", [SWIN, "test_convnext", "test_efficientnet"])
def test_gradient_checkpointing_changes_no_gradient(name):
    plain = TimmBackbone(name=name)
    checkpointed = TimmBackbone(name=name, grad_checkpointing=True)
    checkpointed.load_state_dict(plain.state_dict())
    image = torch.rand(2, 3, 64, 64)
    for backbone in (plain, checkpointed):
        sum(x.square().mean() for x in backbone(image).values()).backward()
    for (key, one), (_, other) in zip(
        plain.named_parameters(), checkpointed.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=key)


def test_swin_blocks_are_the_padded_ones():
    body = TimmBackbone(name=SWIN).body
    blocks = [m for m in body.modules() if isinstance(m, SwinTransformerBlock)]
    assert len(blocks) == 12 and all(type(m) is PaddedSwinBlock for m in blocks)
    assert all(m.window_size == (7, 7) for m in blocks)
    assert [m.shift_size for m in blocks[-2:]] == [(0, 0), (3, 3)]  # the last stage shifts too


def test_pixel_statistics():
    assert pixel_statistics("tf_efficientnet_lite0") == ([127.5] * 3, [127.5] * 3)
    assert pixel_statistics(SWIN)[0] == pytest.approx([123.675, 116.28, 103.53])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "swin_tiny"}, "timm has no model swin_tiny; the nearest are .*swin"),
        ({"name": "vit_tiny_patch16_224"}, "takes images of one size only"),
        (
            {"name": "test_resnet", "out_features": ["res3", "res6"]},
            "has no feature res6, but res1",
        ),
        ({"name": "test_resnet", "freeze_at": 9}, "freeze_at=9: choose 0"),
        ({"name": "test_resnet", "norm": "GN"}, "norm=GN: choose BN or FixedBN"),
        ({"name": "vgg11", "drop_path_rate": 0.5}, "timm has no feature maps of vgg11"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message) as error:
        TimmBackbone(**options)
    assert "\n" not in str(error.value)


def test_weights_of_another_model_are_refused():
    state = timm.create_model("test_resnet").state_dict()
    with pytest.raises(ValueError, match="none of its weights fits"):
        load_state(TimmBackbone(name="test_convnext"), state)


def test_one_file_for_two_timm_backbones_is_refused():
    model = nn.ModuleDict({k: TimmBackbone(name="test_convnext") for k in ("student", "teacher")})
    state = timm.create_model("test_convnext").state_dict()
    with pytest.raises(ValueError, match="model has several .*model.student_checkpoint"):
        load_state(model, state)
