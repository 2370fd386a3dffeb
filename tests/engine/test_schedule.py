"""What starts and ends in a training: the progress of losses, the frozen backbone."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from torch import nn

from helpers import make_batch, make_lgd, make_paa
from lad.engine.hooks import EMAHook
from lad.engine.optimizer import distillation_params
from lad.engine.schedule import FreezeBackbone, ProgressHook
from lad.engine.trainer import Trainer
from lad.modeling.distillation import LAD, Distillation

BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]])


class Loader:
    """The same batch forever."""

    def set_start(self, index):
        """Starts anywhere."""

    def __iter__(self):
        while True:
            yield BATCH


def make_model() -> Distillation:
    return Distillation(student=make_paa(0), distill_losses=[make_lgd()]).train()


def train(model, hooks, *, start=0, stop=4, before_update=None) -> list[dict]:
    """Trains with momentum and weight decay; returns the weights after each step."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=0.1)
    if before_update is not None:
        optimizer.register_step_pre_hook(before_update)
    trainer = Trainer(model, Loader(), optimizer)
    trainer.register_hooks(hooks)
    trainer.start_iter, trainer.max_iter = start, 4
    weights = []
    with EventStorage(start) as trainer.storage:
        trainer.before_train()
        for trainer.iter in range(start, stop):
            trainer.before_step()
            trainer.run_step()
            trainer.after_step()
            weights.append(copy.deepcopy(model.state_dict()))
        trainer.after_train()
    return weights


def same(first, second, prefix) -> bool:
    return all(torch.equal(v, second[k]) for k, v in first.items() if k.startswith(prefix))


def test_progress_is_the_share_of_iterations_before():
    model, shares = make_model(), []
    hook = ProgressHook()
    model.register_forward_pre_hook(lambda *_: shares.append(model.progress.share))
    train(model, [hook])
    assert shares == [0.0, 0.25, 0.5, 0.75]
    assert model.distill_losses[0].progress.share == 0.75, "shared with the losses"
    shares.clear()
    train(model, [ProgressHook()], start=3)
    assert shares == [0.75], "also of a resumed training"


def test_averaged_weights_and_a_resumed_evaluation_know_the_progress():
    model, seen = make_model(), []
    ema = EMAHook(model, 0.9)
    losses = [model.distill_losses[0], ema.model.distill_losses[0]]
    train(model, [ProgressHook(), ema])
    assert [x.progress.share for x in losses] == [0.75, 0.75]
    model.progress.share = 0.0

    class Evaluation(HookBase):
        def before_train(self):
            seen.append([x.progress.share for x in losses])

    train(model, [ProgressHook(), Evaluation()], start=3)
    train(make_model(), [ProgressHook(), Evaluation()])
    assert seen[0] == [0.5, 0.5], "as after iteration 2, which the training had done"


def test_progress_of_a_model_that_does_not_ask():
    train(make_paa(0).train(), [ProgressHook()], stop=1)


@pytest.mark.parametrize("prefix", ["student.backbone.bottom_up.", "backbone.bottom_up."])
def test_the_backbone_is_frozen_in_the_first_part(prefix):
    model = make_model() if prefix.startswith("student") else make_paa(0).train()
    initial = copy.deepcopy(model.state_dict())
    weights = train(model, [FreezeBackbone(until=0.5)])
    assert same(initial, weights[0], prefix) and same(initial, weights[1], prefix)
    assert not same(weights[1], weights[2], prefix) and not same(weights[2], weights[3], prefix)
    rest = prefix.replace("bottom_up.", "fpn_")
    assert not same(initial, weights[0], rest), "the FPN is trained"
    assert all(p.requires_grad for p in model.parameters())


def test_a_ninth_of_180_000_iterations_is_20_000():
    model, hook = make_paa(0), FreezeBackbone(until=1 / 9)
    hook.trainer = SimpleNamespace(model=model, max_iter=180_000)
    hook.before_train()
    for hook.trainer.iter, trained in ((19_999, False), (20_000, True)):
        hook.before_step()
        assert all(p.requires_grad == trained for p in model.backbone.bottom_up.parameters())


def test_freezing_equals_dropped_gradients():
    """As LGD does it: all gradients are computed, then those of the backbone are dropped."""
    twin, steps = make_model(), itertools.count()

    def drop(*_):
        if next(steps) < 2:
            for parameter in twin.student.backbone.bottom_up.parameters():
                parameter.grad = None

    expected = train(twin, [], before_update=drop)
    found = train(make_model(), [FreezeBackbone(until=0.5)])
    assert all(same(x, y, "") for x, y in zip(found, expected, strict=True))


def test_nothing_is_computed_backward_while_frozen():
    model = make_model()
    hook = FreezeBackbone(until=1.0)
    outputs = []
    model.student.backbone.bottom_up.register_forward_hook(
        lambda module, inputs, output: outputs.extend(output.values())
    )
    train(model, [hook], stop=1)
    assert outputs and not any(x.requires_grad for x in outputs)


def test_what_was_frozen_before_stays_frozen():
    model = make_model()
    stem = model.student.backbone.bottom_up.stem.requires_grad_(False)
    train(model, [FreezeBackbone(until=0.25)])
    assert not any(p.requires_grad for p in stem.parameters())


def test_averages_of_a_frozen_backbone_are_its_weights():
    model = make_model()
    ema = EMAHook(model, 0.5)
    train(model, [ema, FreezeBackbone(until=0.5)], stop=2)
    assert same(ema.model.state_dict(), model.state_dict(), "student.backbone.bottom_up.")
    assert not same(ema.model.state_dict(), model.state_dict(), "student.backbone.fpn_")


@pytest.mark.parametrize("until", [-0.1, 1.5])
def test_a_share_outside_is_one_line(until):
    with pytest.raises(ValueError, match=f"until={until}: it is a share of the training"):
        FreezeBackbone(until=until)


def test_a_model_without_an_fpn_is_one_line():
    message = "FreezeBackbone: Linear has no backbone.bottom_up, as an FPN has: remove the hook"
    with pytest.raises(ValueError, match=message):
        FreezeBackbone(until=0.5).check(nn.Linear(1, 1))


def groups(model, **options):
    found = distillation_params(model, **options)
    assert sum(len(x["params"]) for x in found) == len(
        [p for p in model.parameters() if p.requires_grad]
    )
    return {
        id(p): {k: v for k, v in group.items() if k != "params"}
        for group in found
        for p in group["params"]
    }


def test_parameters_of_the_losses_have_their_own_options():
    model = make_model()
    options = groups(
        model,
        distill_losses={"base_lr": 0.5},
        base_lr=0.1,
        weight_decay=0.01,
        weight_decay_norm=0.0,
    )
    for parameter in model.distill_losses.parameters():
        assert options[id(parameter)] == {"lr": 0.5, "weight_decay": 0.01}
    assert options[id(model.student.head.class_logits.weight)] == {"lr": 0.1, "weight_decay": 0.01}
    norm = next(x for x in model.student.head.modules() if isinstance(x, nn.GroupNorm))
    assert options[id(norm.weight)] == {"lr": 0.1, "weight_decay": 0.0}


def test_frozen_teachers_are_in_no_group():
    model = LAD(student=make_paa(0), teacher=make_paa(1))
    options = groups(model, distill_losses={})
    assert not any(id(p) in options for p in model.teacher.parameters())


def test_options_for_a_model_without_losses_are_one_line():
    with pytest.raises(ValueError, match="optimizer.params: OneStageDetector has no distillation"):
        distillation_params(make_paa(0), distill_losses={})
