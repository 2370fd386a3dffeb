"""Repeating a step; the command is in tests/faults/process.py."""

import torch

from helpers import make_batch, make_paa
from lad.engine.replay import replay
from lad.engine.trainer import Trainer
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD


def test_images_without_labels_are_repeated_with_their_batch_alone():
    first, second = make_batch([[[5.0, 5, 40, 50]], [[10.0, 10, 30, 30]]])
    image = {"image": first["image"], "file_name": "c.jpg", "unlabeled": True}
    batch = [first | {"file_name": "a.jpg"}, second | {"file_name": "b.jpg"}, image]
    model = LAD(student=make_paa(0), teacher=make_paa(1), distill_losses=[SoftLabelLoss()]).train()
    trainer = Trainer(model, [], torch.optim.SGD(model.student.parameters(), 0.1))
    step = {"model": model.state_dict(), "trainer": {"iteration": 4}, "rank": 0, "batches": [batch]}
    title, *lines = replay(trainer, step, max_iter=10)
    assert title == "Iteration 5 again, with its weights:"
    names = [line.split(": loss")[0] for line in lines]
    assert names == ["a.jpg, b.jpg, c.jpg", "  alone: a.jpg", "  alone: b.jpg"]
