import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.dense_detector import DenseDetector

from helpers import make_batch, make_paa, random_boxes
from lad.modeling.anchor_generator import AnchorGenerator
from lad.modeling.one_stage import OneStageDetector

BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]])


def train_step(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    losses = model(batch)
    sum(losses.values()).backward()
    return losses


def test_a_step_gives_losses_and_gradients_everywhere():
    model = make_paa()
    losses = train_step(model, BATCH)
    assert losses.keys() == {"loss_cls", "loss_box_reg", "loss_quality"}
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_training_learns_one_image():
    model = make_paa()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    totals = []
    for _ in range(30):
        totals.append(sum(train_step(model, BATCH).values()).item())
        optimizer.step()
    assert sum(totals[-5:]) < 0.7 * sum(totals[:5])


def test_a_batch_is_the_mean_of_its_images():
    """With as many positives per image the normalizers are equal, so the losses are means."""
    model = make_paa()
    images = [BATCH[0], dict(BATCH[0], image=BATCH[0]["image"])]
    alone, together = model(images[:1]), model(images)
    for name, value in together.items():
        torch.testing.assert_close(value, alone[name])
    outputs = [model.run(model.preprocess_image([x])).predictions for x in BATCH]
    both = model.run(model.preprocess_image(BATCH)).predictions
    for name in ("scores", "regression", "quality"):
        joined = torch.cat([getattr(x, name) for x in outputs])
        torch.testing.assert_close(getattr(both, name), joined, rtol=1e-4, atol=1e-5)


def test_it_runs_through_detectron2s_own_call_path():
    model = make_paa()
    assert isinstance(model, DenseDetector)
    assert OneStageDetector.forward is DenseDetector.forward
    images = model.preprocess_image(BATCH)
    features = model.extract(images)
    outputs = model.head(features)
    instances = [x["instances"] for x in BATCH]
    losses = model.forward_training(images, features, outputs, instances)
    assert all(torch.equal(losses[name], value) for name, value in model(BATCH).items())
    model.eval()
    torch.nn.init.constant_(model.head.class_logits.bias, 1.0)
    found = model.forward_inference(images, features, model.head(features))
    assert [x.image_size for x in found] == [(64, 96)] * 2 and len(found[0]) == 100
    for theirs, ours in zip(model(BATCH), found, strict=True):
        assert torch.equal(theirs["instances"].scores, ours.scores)


@pytest.mark.parametrize(
    "boxes",
    [
        [[], []],
        [[[5.0, 5, 40, 50]], []],
        [[[5.0, 5, 5, 50]], []],  # no area
        [[[5.0, 5, 6, 6]]],
        [random_boxes(1000, 64, 96)],
    ],
    ids=["no objects", "one image without", "no area", "tiny", "a thousand"],
)
def test_every_kind_of_ground_truth_trains(boxes):
    losses = train_step(make_paa(), make_batch(boxes))
    assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_network_gives_losses_that_are_not_finite(bad):
    model = make_paa()
    torch.nn.init.constant_(model.head.deltas.bias, bad)
    assert not sum(model(BATCH).values()).isfinite()


def test_inference_gives_instances_in_the_inputs_own_size():
    model = make_paa().eval()
    torch.nn.init.constant_(model.head.class_logits.bias, 1.0)  # everything is detected
    batch = [dict(BATCH[0], height=128, width=192)]
    found = model(batch)[0]["instances"]
    assert found.image_size == (128, 192) and len(found) == 100
    assert found.pred_boxes.tensor[:, 2].max() > 96
    torch.nn.init.constant_(model.head.class_logits.bias, -50.0)
    assert len(model(batch)[0]["instances"]) == 0


def test_images_of_other_sizes_are_padded():
    batch = make_batch([[[5.0, 5, 40, 50]]]) + make_batch([[[5.0, 5, 20, 20]]], (40, 50))
    assert all(value.isfinite() for value in make_paa()(batch).values())


def test_training_without_ground_truth_is_refused():
    with pytest.raises(AssertionError, match="Instance annotations are missing"):
        make_paa()([{"image": BATCH[0]["image"]}])


def test_it_is_registered():
    assert META_ARCH_REGISTRY.get("OneStageDetector") is OneStageDetector


def test_anchors_and_features_must_agree():
    model = make_paa()
    parts = dict(
        backbone=model.backbone,
        head=model.head,
        head_in_features=["p3", "p4", "p5"],
        assigner=model.assigner,
        losses=model.detection_losses,
        postprocessor=model.postprocessor,
        pixel_mean=[0.0] * 3,
        pixel_std=[1.0] * 3,
    )
    with pytest.raises(ValueError, match=r"strides \[8, 16, 32\], the anchors \[4, 8, 16\]: set"):
        OneStageDetector(anchor_generator=AnchorGenerator(strides=(4, 8, 16)), **parts)
    parts["assigner"] = make_paa(num_classes=5).assigner
    with pytest.raises(ValueError, match="the head has 3 classes, the assigner 5"):
        OneStageDetector(anchor_generator=AnchorGenerator(strides=(8, 16, 32)), **parts)
