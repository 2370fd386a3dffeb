"""COCO 2017, short side 800: the loader of the papers' single-scale rows."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from lad.data import (
    ImageMapper,
    build_coco_evaluator,
    build_evaluation_loader,
    build_train_loader,
    get_dataset_dicts,
    unlabeled_images,
)

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(get_dataset_dicts)(names="coco_2017_train", filter_empty=True),
    mapper=L(ImageMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333),
            L(T.RandomFlip)(prob=0.5, horizontal=True),
        ],
        image_format="RGB",
        use_instance_mask=False,
        max_pixels=100_000_000,  # larger images count as unreadable
    ),
    total_batch_size=16,
    num_workers=4,
    seed="${...train.seed}",
    aspect_ratio_grouping=True,
    # Images of these datasets without their labels, or of train_net.py's --unlabeled FOLDER.
    unlabeled=L(unlabeled_images)(names=None, ratio=1.0),
    # The share of the images that may be unreadable: others are taken instead.
    max_unreadable=0.01,
)

dataloader.test = L(build_evaluation_loader)(
    dataset=L(get_dataset_dicts)(names="coco_2017_val", filter_empty=False),
    mapper=L(ImageMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
        image_format="RGB",
        max_pixels="${...train.mapper.max_pixels}",
    ),
    num_workers=4,
)

dataloader.evaluator = L(build_coco_evaluator)(
    dataset_name="${..test.dataset.names}",
    output_dir="${...train.output_dir}/inference",
)
