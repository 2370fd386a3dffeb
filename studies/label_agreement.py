"""How far the labels of CoLAD's networks agree with each other, and with a trained network's.

    python -m studies.label_agreement CHECKPOINT [OVERRIDE...]

CHECKPOINT is a trained network of configs/digits/teacher.py. Trains configs/digits/colad_stdmean.py
for 400 iterations on the CPU and keeps nothing. The agreement of two networks' labels is the F1
score of their positives (the same anchor for the same object) on the first training batches, in
percent.
"""

from __future__ import annotations

import argparse
import copy
import tempfile

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng
from torch import Tensor

from lad.checkpoint import load_weights
from lad.engine.build import build_trainer
from lad.engine.config import build, load_config, user_errors
from lad.engine.hooks import unwrap
from lad.engine.signals import StopSignals
from lad.modeling.batch import ground_truth
from lad.modeling.distillation import CoLAD
from lad.modeling.network import DenseNetwork
from lad.structures import Targets
from studies.runner.tables import markdown

ITERATIONS = (1, 25, 50, 100, 150, 200, 300, 400)
BATCHES = 6


class LabelAgreement(HookBase):
    """Compares the labels of CoLAD's networks at some iterations.

    Args:
        trained: the network with the same anchors that the labels are compared with.
        batches: model inputs with objects.

    Attributes:
        rows: iteration, and the agreement of student and second network with each other, and of
            student, second network and the training's labels with ``trained``. The training's are
            those of both networks, or the student's own while each has its own.
    """

    def __init__(self, trained: DenseNetwork, batches: list[list[dict]]):
        self.trained = trained
        self.batches = batches
        self.rows: list[list[str]] = []

    def after_step(self) -> None:
        """Adds a row."""
        iteration = self.trainer.iter + 1
        if iteration in ITERATIONS:
            model = copy.deepcopy(unwrap(self.trainer.model))  # batch norm counts what it sees
            shares = mean_agreement(model, self.trained, self.batches)
            self.rows.append([str(iteration), *(f"{100 * share:.0f}" for share in shares)])


@torch.no_grad()
def mean_agreement(model: CoLAD, trained: DenseNetwork, batches: list[list[dict]]) -> Tensor:
    """Returns the four agreements of `LabelAgreement.rows`, means over batches."""
    shares = []
    for batch in batches:
        targets = Targets.from_instances(ground_truth(batch))
        outputs = model.run(batch)
        student, second = (
            model.student.assign(x.predictions, targets).gt
            for x in (outputs.student, outputs.teacher)
        )
        goal = trained.assign(trained.run(trained.preprocess_image(batch)).predictions, targets).gt
        chosen = model.assign(outputs, targets).gt
        pairs = (student, second), (student, goal), (second, goal), (chosen, goal)
        shares.append(torch.stack([agreement(*pair) for pair in pairs]))
    return torch.stack(shares).mean(dim=0)


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """Returns the F1 score of two assignments' positives, of (N, R) matched objects or -1."""
    both = ((one == other) & (one >= 0)).sum()
    return 2 * both / ((one >= 0).sum() + (other >= 0).sum()).clamp(min=1)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="label_agreement", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoint", help="of configs/digits/teacher.py")
    parser.add_argument("overrides", nargs="*", help="of configs/digits/colad_stdmean.py")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"train.max_iter={ITERATIONS[-1]}",
            "train.eval_period=0",
            f"train.output_dir={folder}",
        ]
        with user_errors():
            config = load_config("digits/colad_stdmean.py", [*overrides, *args.overrides])
            trained = instantiate(load_config("digits/teacher.py").model).eval()
            load_weights(trained, args.checkpoint)
            seed_all_rng(config.train.seed)
            model = build(config, "model")
            trainer, _ = build_trainer(config, model, StopSignals())
        loader = iter(build(config, "dataloader.train"))
        hook = LabelAgreement(trained, [next(loader) for _ in range(BATCHES)])
        trainer.register_hooks([hook])
        trainer.train(0, config.train.max_iter)
    header = ["iteration", "student, second", "student, trained", "second, trained"]
    print(markdown([*header, "training's, trained"], hook.rows))


if __name__ == "__main__":
    main()
