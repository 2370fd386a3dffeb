"""The training step: precision, accumulation, clipping, failure, exact resume."""

from __future__ import annotations

import copy
from itertools import islice

import pytest
import torch
from detectron2.engine import hooks

from lad.engine.hooks import IterationSeed
from lad.engine.signals import Failed
from lad.engine.trainer import Trainer, gradient_clipper
from toy_training import ToyModel, build_toy_loader


def make_trainer(
    *, seed=0, batch=4, dropout=0.2, momentum=0.9, hook_list=(), model=None, **options
):
    if model is None:
        torch.manual_seed(seed)
        model = ToyModel(dropout=dropout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
    trainer = Trainer(
        model, build_toy_loader(total_batch_size=batch, seed=seed), optimizer, **options
    )
    trainer.register_hooks([IterationSeed(seed), *hook_list])
    return trainer


class Losses(hooks.HookBase):
    """Collects the total loss of every step."""

    def __init__(self):
        self.values = []

    def after_step(self):
        self.values.append(self.trainer.storage.latest()["total_loss"][0])


def state(trainer):
    return copy.deepcopy([trainer.model.state_dict(), trainer.state_dict()])


def assert_equal(a, b):
    assert torch.equal(flat(a), flat(b))


def flat(nested):
    """All tensors and numbers of a nested state in one tensor."""
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, list | tuple):
        parts = [flat(x) for x in nested]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
    if nested is None or isinstance(nested, str):
        return torch.zeros(0, dtype=torch.float64)
    return torch.as_tensor(nested, dtype=torch.float64).flatten()


def test_step_is_plain_sgd():
    trainer = make_trainer(dropout=0.0, momentum=0.0)
    expected = copy.deepcopy(trainer.model)
    batch = next(iter(build_toy_loader(seed=0)))
    sum(expected(batch).values()).backward()
    with torch.no_grad():
        for p in expected.parameters():
            p -= 0.05 * p.grad
    trainer.train(0, 1)
    for ours, theirs in zip(trainer.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_two_runs_with_a_seed_are_equal_and_another_seed_is_not():
    states = []
    for seed in (3, 3, 4):
        trainer = make_trainer(seed=seed)
        trainer.train(0, 4)
        states.append(flat(trainer.model.state_dict()))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"amp_dtype": "float16"}])
def test_resumed_training_continues_to_the_bit(options):
    whole_losses, losses = Losses(), Losses()
    whole = make_trainer(hook_list=[whole_losses], **options)
    whole.train(0, 6)
    first = make_trainer(hook_list=[losses], **options)
    first.train(0, 3)
    weights, training = state(first)
    torch.manual_seed(99)  # what a new process starts with does not matter
    second = make_trainer(hook_list=[losses], model=ToyModel(), **options)
    second.model.load_state_dict(weights)
    second.load_state_dict(training)
    second.train(3, 6)
    assert losses.values == whole_losses.values
    assert_equal(state(second), state(whole))


def test_half_batches_accumulate_to_the_whole_batch():
    # Equal for losses that are means over images, without dropout: up to rounding. The positions of
    # the images in training are the same, so their augmentation is too.
    whole_losses, half_losses = Losses(), Losses()
    whole = make_trainer(batch=4, dropout=0.0, hook_list=[whole_losses])
    half = make_trainer(batch=4, dropout=0.0, accumulate=2, hook_list=[half_losses])
    half.data_loader = HalfBatches(half.data_loader)
    whole.train(0, 4)
    half.train(0, 4)
    torch.testing.assert_close(half_losses.values, whole_losses.values, rtol=1e-5, atol=1e-6)
    for a, b in zip(whole.model.parameters(), half.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class HalfBatches:
    """Each batch of a loader in two halves."""

    def __init__(self, loader):
        self.loader = loader

    def set_start(self, batch):
        self.loader.set_start(batch // 2)

    def __iter__(self):
        for batch in self.loader:
            yield batch[: len(batch) // 2]
            yield batch[len(batch) // 2 :]


def test_accumulation_reads_batches_from_the_position_of_its_iteration():
    trainer = make_trainer(accumulate=3)
    positions = []
    trainer.data_loader.set_start = positions.append
    trainer.train(5, 6)
    assert positions == [15]


def test_clipping_by_norm_and_by_value():
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, -4.0])
    gradient_clipper("value", 3.5)([parameter])
    assert parameter.grad.tolist() == [3.0, -3.5]
    parameter.grad = torch.tensor([3.0, -4.0])
    gradient_clipper("norm", 1.0)([parameter])
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, -0.8]))


@pytest.mark.parametrize("amp_dtype", [None, "float16"])
def test_step_clips_the_unscaled_gradient(amp_dtype):
    trainer = make_trainer(
        momentum=0.0, amp_dtype=amp_dtype, clip_grad=gradient_clipper("norm", 0.01)
    )
    before = flat(list(trainer.model.parameters()))
    trainer.train(0, 1)
    step = (flat(list(trainer.model.parameters())) - before).norm()
    torch.testing.assert_close(step.item(), 0.05 * 0.01, rtol=1e-3, atol=0)


@pytest.mark.parametrize("amp_dtype", ["bfloat16", "float16"])
def test_mixed_precision_trains_on_the_cpu(amp_dtype):
    plain, mixed = Losses(), Losses()
    make_trainer(hook_list=[plain]).train(0, 3)
    trainer = make_trainer(amp_dtype=amp_dtype, hook_list=[mixed])
    trainer.train(0, 3)
    assert plain.values != mixed.values
    torch.testing.assert_close(plain.values, mixed.values, rtol=0.05, atol=0.01)
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert ("grad_scaler" in trainer.state_dict()) == (amp_dtype == "float16")


def test_loss_that_is_not_finite_names_the_iteration_and_leaves_the_weights():
    model = ToyModel(fail_at=11 / 12)
    trainer = make_trainer(model=model)
    order = [max(x["image_id"] for x in b) for b in islice(trainer.data_loader, 3)]
    failing = order.index(11)
    with pytest.raises(Failed, match=rf"iteration {failing + 1}: loss_square is nan.* on .*\b11\b"):
        trainer.train(0, 6)
    assert all(p.isfinite().all() for p in model.parameters())


def test_steps_that_are_not_finite_are_skipped_and_counted():
    model = ToyModel(fail_at=11 / 12)
    trainer = make_trainer(model=model, skip_nonfinite=2)
    order = [max(x["image_id"] for x in b) for b in islice(trainer.data_loader, 9)]
    failing = [i for i, largest in enumerate(order) if largest == 11]
    assert len(failing) == 3  # once in each of three epochs
    weights = {}

    class Look(hooks.HookBase):
        def before_step(self):
            weights[self.trainer.iter] = copy.deepcopy(model.state_dict())

    trainer.register_hooks([Look()])
    with pytest.raises(Failed, match=f"iteration {failing[2] + 1}: "):
        trainer.train(0, 9)
    assert trainer.skipped == 2 and trainer.state_dict()["skipped"] == 2
    for step in range(8):
        before, after = weights[step], weights.get(step + 1)
        if after is not None:  # buffers, too
            same = all(torch.equal(before[k], after[k]) for k in before)
            assert same == (step in failing[:2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "train.accumulate=0"),
        ({"amp_dtype": "float8"}, "train.amp.dtype='float8': choose one of float16, bfloat16"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)


@pytest.mark.parametrize(
    ("type", "max", "message"),
    [("norm", 0.0, "train.clip_grad.max=0.0"), ("abs", 1.0, "train.clip_grad.type='abs'")],
)
def test_impossible_clipping(type, max, message):
    with pytest.raises(ValueError, match=message):
        gradient_clipper(type, max)
