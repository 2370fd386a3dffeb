"""Shows what the teacher of a training with LGD knows: its features, and its AP with the labels.

    python tools/inspect_lgd.py --config-file output/digits/paa_lgd/config.yaml \
        --weights output/digits/paa_lgd/model_final.pth --pictures output/digits/paa_lgd/features

The pictures show the student's and the teacher's features of test images side by side. --oracle
evaluates the student's head on the teacher's features. As these are made with the labels of the
test images, it says how much the features tell, and is no result of the detector.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from detectron2.evaluation import inference_on_dataset
from omegaconf import DictConfig, OmegaConf

import lad.data  # noqa: F401  registers the datasets
from lad.checkpoint import load_weights
from lad.engine.command_line import add_trust
from lad.engine.config import build, load_config, user_errors
from lad.engine.setup import resolve_device
from lad.modeling.distill_losses.lgd.oracle import Oracle


def build_oracle(config: DictConfig, weights: str) -> Oracle:
    """Builds a config's model with the weights of a training."""
    model = build(config, "model")
    oracle = Oracle(model)
    load_weights(model, weights, source="--weights", complete=["student", "distill_losses"])
    return oracle.to(resolve_device(config.train.device)).eval()


def test_images_with_labels(config: DictConfig) -> torch.utils.data.DataLoader:
    """Builds the test loader; its mapper keeps the labels, as the training's does."""
    for key in ("use_instance_mask", "instance_mask_format"):
        value = OmegaConf.select(config, f"dataloader.train.mapper.{key}")
        if value is not None:
            config.dataloader.test.mapper[key] = value
    config.dataloader.test.mapper.is_train = True
    return build(config, "dataloader.test")


@torch.no_grad()
def draw(oracle: Oracle, loader: torch.utils.data.DataLoader, folder: Path, count: int) -> None:
    """Draws the features of the first images that have objects."""
    from lad.visualize import plot_features  # Matplotlib is slow to import.

    folder.mkdir(parents=True, exist_ok=True)
    for batch in loader:
        for record in batch:
            instances = record["instances"]
            if not len(instances):
                continue
            student, teacher = oracle.features([record])
            path = folder / f"{Path(record['file_name']).stem}.png"
            plot_features(
                record["image"].permute(1, 2, 0).numpy(),
                instances.gt_boxes.tensor.numpy(),
                {"student": [x[0] for x in student], "label-guided": [x[0] for x in teacher]},
                path,
            )
            print(path)
            count -= 1
            if not count:
                return


def main() -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True, help="of a training with LGD")
    parser.add_argument("--weights", required=True, help="of that training, e.g. model_final.pth")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw features into DIR")
    parser.add_argument("--count", type=int, default=4, help="pictures (default 4)")
    parser.add_argument("--oracle", action="store_true", help="evaluate with the labels")
    add_trust(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides of the config")
    args = parser.parse_args()
    if args.pictures is None and not args.oracle:
        parser.error("nothing to do: add --pictures DIR or --oracle")
    if args.count < 1:
        parser.error(f"--count {args.count}: draw at least one picture")
    with user_errors():
        config = load_config(args.config_file, args.opts, trusted=args.trust)
        oracle = build_oracle(config, args.weights)
        loader = test_images_with_labels(config)
        config.dataloader.evaluator.output_dir = None
        evaluator = build(config, "dataloader.evaluator")
        if args.pictures is not None:
            draw(oracle, loader, args.pictures, args.count)
    if args.oracle:
        results = inference_on_dataset(oracle, loader, evaluator)
        print("With the labels of the test images; no result of the detector:")
        for task, figures in results.items():
            print(", ".join(f"oracle/{task}/{k} {figures[k]:.2f}" for k in ("AP", "AP50", "AP75")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
