"""What an exported file says of itself."""

from dataclasses import replace

import numpy as np
import pytest
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from torch import nn

from helpers import make_paa
from lad.export.describe import describe
from lad.export.metadata import Metadata
from lad.modeling.backbones.timm import TimmBackbone
from lad.modeling.network import DenseNetwork


def mapper(*augmentations, image_format="RGB"):
    return DatasetMapper(
        is_train=False, augmentations=list(augmentations), image_format=image_format
    )


def described(*augmentations, **options) -> Metadata:
    names = ["cat", "Hündin", "3"]
    return describe(make_paa(), mapper(*augmentations), class_names=names, **options)


def test_it_describes_the_detector_and_survives_writing():
    resize = T.ResizeShortestEdge(320, 640)
    data = described(resize, category_ids=[7, 5, 1], size=(64, 96), nms=True)
    assert data.class_names == ("cat", "Hündin", "3")
    assert (data.category_ids, data.channel_order) == ((7, 5, 1), "RGB")
    assert (data.pixel_mean, data.pixel_std) == ((120.0,) * 3, (60.0,) * 3)
    assert (data.size, data.size_multiple, data.resize) == ((64, 96), 32, (320, 640))
    settings = (data.score_threshold, data.nms_iou, data.max_detections)
    assert (*settings, data.score_voting, data.nms_inside) == (0.05, 0.6, 100, False, True)
    strings = data.to_strings() | {"somebodys": "note"}
    assert Metadata.from_strings(strings) == data
    del strings["class_names"]
    with pytest.raises(ValueError, match="its metadata lack class_names: write it with"):
        Metadata.from_strings(strings)
    assert described().score_voting


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (100, 1000), (333, 333), (1, 7)])
def test_images_are_resized_as_detectron2_does(size):
    data = described(T.ResizeShortestEdge(320, 640))
    transform = T.ResizeShortestEdge(320, 640).get_transform(np.zeros((*size, 3), np.uint8))
    assert data.resized(*size) == (transform.new_h, transform.new_w)
    assert described().resized(*size) == size


def test_images_fit_into_a_file_of_one_size():
    data = replace(described(T.ResizeShortestEdge(320, 640)), size=(256, 384))
    assert data.resized(480, 640) == (256, 341)
    assert data.resized(100, 1000) == (38, 384)
    assert replace(data, resize=None).resized(100, 300) == (100, 300), "not enlarged"
    assert data.padded(256, 341) == (256, 384)
    dynamic = described()
    assert dynamic.padded(256, 341) == (256, 352)
    assert dynamic.padded(1, 33) == (64, 64), "two multiples at least"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (64, 90)}, "size 64x90: height and width have to be multiples of 32, such as 64"),
        ({"size": (0, 64)}, "size 0x64: height and width have to be multiples of 32, such as 32x"),
    ],
)
def test_other_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        described(**options)


@pytest.mark.parametrize(
    ("test_mapper", "message"),
    [
        (mapper(image_format="L"), "dataloader.test.mapper.image_format=L: export knows RGB and"),
        (mapper(T.RandomFlip()), "augmentations: export knows none, or one ResizeShortestEdge"),
        (mapper(T.ResizeShortestEdge((64, 96))), "one ResizeShortestEdge of one length, but not"),
    ],
)
def test_other_mappers_are_refused(test_mapper, message):
    with pytest.raises(ValueError, match=message):
        describe(make_paa(), test_mapper, class_names=["a", "b", "c"])


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "tf_efficientnet_lite0"])
def test_some_backbones_need_a_size(name):
    network = make_paa()
    network.backbone.bottom_up = TimmBackbone(name=name, out_features=["res3"])
    with pytest.raises(ValueError, match="are exported for one size only: choose --size HEIGHTx"):
        describe(network, mapper(), class_names=["a", "b", "c"])
    assert describe(network, mapper(), class_names=["a", "b", "c"], size=(64, 64)).size == (64, 64)


def test_networks_without_a_fixed_number_of_boxes_are_refused():
    with pytest.raises(ValueError, match="DenseNetwork cannot be exported: it has no select_boxes"):
        describe(DenseNetwork(), mapper(), class_names=[])
    with pytest.raises(ValueError, match="ReLU cannot be exported: it is no DenseNetwork"):
        describe(nn.ReLU(), mapper(), class_names=[])
