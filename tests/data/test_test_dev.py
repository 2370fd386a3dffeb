"""Test-dev: images without annotations give the json file for COCO's server and no figures."""

import json
from pathlib import Path

import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances
from torch import nn

from lad.data import build_coco_evaluator, get_dataset_dicts
from lad.engine.config import load_config
from lad.engine.evaluation import evaluate


class OneBox(nn.Module):
    """Finds one object of class 1 in every image."""

    def forward(self, inputs):
        instances = Instances((48, 64))
        instances.pred_boxes = Boxes(torch.tensor([[2.0, 3.0, 12.0, 23.0]]))
        instances.scores = torch.tensor([0.75])
        instances.pred_classes = torch.tensor([1])
        return [{"instances": instances} for _ in inputs]


def image_info(coco_files, dataset_name):
    """Registers images as Detectron2 registers test-dev: categories, but no annotations."""
    json_file, image_root = coco_files([(64, 48), (64, 48)])
    content = json.loads(json_file.read_text())
    del content["annotations"]
    content["categories"] = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    json_file.write_text(json.dumps(content))
    register_coco_instances(dataset_name, {}, str(json_file), str(image_root))
    return get_dataset_dicts(dataset_name, filter_empty=False)


def test_an_override_names_test_dev():
    config = load_config(
        str(Path(__file__).parents[2] / "configs/paa/r18_1x.py"),
        ["dataloader.test.dataset.names=coco_2017_test-dev"],
    )
    assert config.dataloader.evaluator.dataset_name == "coco_2017_test-dev"
    assert "coco_2017_test-dev" in DatasetCatalog.list()
    assert "image_info_test-dev2017" in MetadataCatalog.get("coco_2017_test-dev").json_file


def test_results_are_written_for_the_server(coco_files, dataset_name, tmp_path, caplog):
    records = image_info(coco_files, dataset_name)
    assert [record["image_id"] for record in records] == [1, 2]
    folder = tmp_path / "inference"
    node = L(build_coco_evaluator)(dataset_name=dataset_name, output_dir=str(folder))
    with caplog.at_level("INFO"):
        results = evaluate(OneBox(), [[record] for record in records], node)
    assert results == {}
    file = folder / "coco_instances_results.json"
    assert f"Saving results to {file}" in caplog.text
    assert "Annotations are not available" in caplog.text
    assert json.loads(file.read_text()) == [
        {"image_id": i, "category_id": 7, "bbox": [2.0, 3.0, 10.0, 20.0], "score": 0.75}
        for i in (1, 2)
    ]
