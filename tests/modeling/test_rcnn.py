"""Detectron2's Faster and Mask R-CNN as students of LGD."""

import copy
import math

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage

from helpers import ToyLoss, make_batch, make_lgd, make_paa
from lad.engine.hooks import EMAHook
from lad.engine.validation import mean_losses
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, Distillation
from lad.modeling.rcnn import RCNN
from test_configs import CONFIGS

CHANNELS = 16
BOXES = [[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]]
BATCH = make_batch(BOXES)
EMPTY = make_batch([[], []])
(resnet,) = LazyConfig.load(str(CONFIGS / "common/models/backbones.py"), ("resnet",))
faster_rcnn, mask_rcnn = LazyConfig.load(
    str(CONFIGS / "common/models/rcnn.py"), ("faster_rcnn", "mask_rcnn")
)


@pytest.fixture(autouse=True)
def storage():
    with EventStorage() as events:
        yield events


def make_rcnn(seed=0, *, masks=False) -> RCNN:
    torch.manual_seed(seed)
    bottom_up = resnet(10)
    bottom_up.update(width=8, norm="BN", freeze_at=0)
    config = (mask_rcnn if masks else faster_rcnn)(bottom_up, num_classes=3, channels=CHANNELS)
    config.roi_heads.box_head.fc_dims = [32]
    config.roi_heads.box_predictor.input_shape.channels = 32
    return instantiate(config)


def with_masks(batch):
    batch = copy.deepcopy(batch)
    for image in batch:
        instances = image["instances"]
        masks = torch.zeros(len(instances), *instances.image_size, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, instances.gt_boxes, strict=True):
            mask[int(top) : int(bottom), int(left) : int(right)] = True
        instances.gt_masks = BitMasks(masks)
    return batch


def make_model(*, masks=False) -> Distillation:
    lgd = make_lgd(CHANNELS, masks=masks)
    return Distillation(student=make_rcnn(masks=masks), distill_losses=[lgd]).train()


def as_detectron2(model):
    twin = copy.deepcopy(model)
    twin.__class__ = GeneralizedRCNN
    return twin


@pytest.mark.parametrize("masks", [False, True])
def test_losses_and_detections_are_those_of_detectron2(masks):
    model = make_rcnn(masks=masks).train()
    batch = with_masks(BATCH) if masks else BATCH
    theirs = as_detectron2(model)
    torch.manual_seed(1)  # both sample proposals
    losses = Distillation(student=model).train()(batch)
    torch.manual_seed(1)
    expected = theirs(batch)
    assert losses.keys() == expected.keys() and len(losses) == 4 + masks
    assert all(torch.equal(losses[name], value) for name, value in expected.items())
    torch.nn.init.constant_(model.roi_heads.box_predictor.cls_score.bias, 0.0)
    theirs.load_state_dict(model.state_dict())
    found, wanted = (x.eval()(batch)[0]["instances"] for x in (model, theirs))
    assert len(found) and torch.equal(found.scores, wanted.scores)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("batch", [BATCH, EMPTY], ids=["objects", "empty"])
def test_lgd_trains_everything(masks, batch, storage):
    model = make_model(masks=masks)
    losses = model(with_masks(batch) if masks else batch)
    own = {name for name in losses if not name.startswith(("lgd/", "loss_lgd"))}
    assert losses.keys() == own | {f"lgd/{name}" for name in own} | {"loss_lgd"}
    assert all(x.isfinite() for x in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert {"rpn/num_pos_anchors", "second_pass/rpn/num_pos_anchors"} <= storage.latest().keys()


def test_an_image_without_objects_needs_no_masks():
    model, empty = make_model(masks=True), make_batch([[]], seed=3)
    twin = copy.deepcopy(model)
    torch.manual_seed(1)  # both sample proposals
    losses = model(with_masks(BATCH) + empty)
    torch.manual_seed(1)
    expected = twin(with_masks(BATCH) + with_masks(empty))
    assert all(torch.equal(x, expected[name]) for name, x in losses.items())
    assert all(x.isfinite() for x in model(empty).values())


@pytest.mark.parametrize("masks", [False, True])
def test_losses_on_test_images(masks):
    batches = [with_masks(BATCH) if masks else BATCH, EMPTY]
    losses = mean_losses(make_model(masks=masks), batches)
    assert ("val/loss_mask" in losses) == masks and "val/loss_lgd" in losses
    assert all(map(math.isfinite, losses.values()))


@pytest.mark.parametrize("train_head", [True, False])
def test_a_nan_reaches_all_that_is_trained(train_head):
    # Other processes wait for the gradient of each parameter.
    lgd = make_lgd(CHANNELS, loss={"train_head": train_head})
    model = Distillation(student=make_rcnn(), distill_losses=[lgd]).train()
    batch = copy.deepcopy(BATCH)
    batch[0]["image"] = batch[0]["image"] * torch.nan
    losses = model(batch)
    assert losses["loss_rpn_cls"].isnan()
    sum(losses.values()).backward()
    missing = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    averaged = EMAHook(model, 0.9).model
    assert math.isnan(mean_losses(averaged, [batch])["val/loss_rpn_cls"])


def test_running_statistics_are_those_of_the_students_features():
    model, plain = make_model(), make_rcnn().train()
    model(BATCH)
    plain(BATCH)
    for (name, found), expected in zip(model.student.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(found, expected), name


def test_a_released_checkpoint_of_detectron2_has_its_keys():
    assert make_rcnn().state_dict().keys() == as_detectron2(make_rcnn()).state_dict().keys()


def test_missing_masks_are_one_line():
    with pytest.raises(ValueError, match="Mask R-CNN needs instance masks: set dataloader"):
        make_model(masks=True)(BATCH)


@pytest.mark.parametrize("loss", [SoftLabelLoss(), ToyLoss()])
def test_it_is_no_student_of_dense_predictions(loss):
    for networks in (
        {"student": make_rcnn(), "teacher": make_paa(1)},
        {"student": make_paa(1), "teacher": make_rcnn()},
    ):
        with pytest.raises(ValueError, match="Faster and Mask R-CNN have no dense predictions"):
            LAD(**networks, distill_losses=[loss])
