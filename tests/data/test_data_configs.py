import os
from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

CONFIGS = Path(__file__).parents[2] / "configs" / "common" / "data"


def load(name, tmp_path):
    cfg = LazyConfig.load(str(CONFIGS / f"{name}.py"))
    cfg.train = OmegaConf.create({"seed": 7, "output_dir": str(tmp_path)})
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    return LazyConfig.load(str(tmp_path / "config.yaml"))


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.py")))
def test_config_saves_and_its_parts_build(name, tmp_path):
    dataloader = load(name, tmp_path).dataloader
    for split in ("train", "test"):
        mapper = instantiate(dataloader[split].mapper)
        assert mapper.image_format == "RGB" and mapper.is_train == (split == "train")
    assert dataloader.train.seed == 7
    assert dataloader.evaluator.dataset_name == dataloader.test.dataset.names
    assert dataloader.evaluator.output_dir == str(tmp_path / "inference")


def test_multi_scale_draws_the_short_side_from_a_range(tmp_path):
    resize = instantiate(load("coco_ms", tmp_path).dataloader.train.mapper.augmentations[0])
    assert list(resize.short_edge_length) == [640, 800] and resize.is_range


@pytest.mark.skipif(
    not Path(os.environ.get("DETECTRON2_DATASETS", "datasets"), "bccd").is_dir(),
    reason="needs the folder bccd in $DETECTRON2_DATASETS",
)
def test_bccd_loads_at_half_size(tmp_path):
    dataloader = load("bccd", tmp_path).dataloader
    dataloader.train.num_workers = 0
    batch = next(iter(instantiate(dataloader.train)))
    assert [tuple(element["image"].shape) for element in batch] == [(3, 240, 320)] * 4
    assert all(len(element["instances"]) > 0 for element in batch)
