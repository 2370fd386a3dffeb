"""Every config loads, instantiates without data and weights, saves as YAML and comes back."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.glob("*/*.py")
    if path.parts[len(CONFIGS.parts)] != "common"
)


@pytest.mark.parametrize("name", FILES)
def test_config(name, tmp_path):
    config = LazyConfig.load(str(CONFIGS / name))
    with torch.device("meta"):
        model = instantiate(config.model)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) > 0
    multiplier = instantiate(config.lr_multiplier)
    assert 0 <= multiplier(0.999) < multiplier(0.5) <= 1
    assert config.train.output_dir == f"output/{name.removesuffix('.py')}"
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    saved = LazyConfig.load(str(tmp_path / "config.yaml"))
    for key in ("max_iter", "output_dir", "init_checkpoint", "amp"):
        assert saved.train[key] == config.train[key]
    assert len(saved.train.hooks) == len(config.train.hooks)
    with torch.device("meta"):
        again = instantiate(saved.model)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (model, again)]
    assert shapes[0] == shapes[1]


def test_there_are_configs():
    assert len(FILES) > 10
