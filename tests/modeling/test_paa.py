import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY

from helpers import make_batch, make_paa, random_boxes
from lad.boxes import AnchorGenerator
from lad.modeling.paa import PAA

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


def test_a_batch_costs_what_its_images_cost_alone():
    model = make_paa()
    together = model(BATCH)["loss_cls"]
    targets = model.targets(BATCH)
    assert targets.image.tolist() == [0, 0, 1]
    predictions = [model.predict(model.preprocess_image([x]).tensor)[0] for x in BATCH]
    both = model.predict(model.preprocess_image(BATCH).tensor)[0]
    joined = torch.cat([x.scores for x in predictions])
    torch.testing.assert_close(both.scores, joined, rtol=1e-4, atol=1e-5)
    assert together.isfinite()


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
    with pytest.raises(ValueError, match="training needs ground truth"):
        make_paa()([{"image": BATCH[0]["image"]}])


def test_it_is_registered():
    assert META_ARCH_REGISTRY.get("PAA") is PAA


def test_anchors_and_features_must_agree():
    model = make_paa()
    parts = dict(
        backbone=model.backbone,
        head=model.head,
        head_in_features=["p3", "p4", "p5"],
        assigner=model.assigner,
        losses=model.detection_losses,
        detector=model.detector,
        pixel_mean=[0.0] * 3,
        pixel_std=[1.0] * 3,
    )
    with pytest.raises(ValueError, match=r"strides \(8, 16, 32\), the anchors \(4, 8, 16\)"):
        PAA(anchor_generator=AnchorGenerator(strides=(4, 8, 16)), **parts)
    parts["assigner"] = make_paa(num_classes=5).assigner
    with pytest.raises(ValueError, match="the head has 3 classes, the assigner 5"):
        PAA(anchor_generator=AnchorGenerator(strides=(8, 16, 32)), **parts)
