"""A distillation loss with parameters of its own, from construction to export."""

import copy

import pytest
import torch
from detectron2.config import instantiate
from detectron2.solver.build import get_default_optimizer_params

from helpers import ToyLoss, make_batch, make_paa
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.checkpoint import export_network
from lad.engine.config import CONFIGS, load_config
from lad.modeling.distillation import LAD, CoLAD
from lad.modeling.network import recorded

BATCH = make_batch([[[5.0, 5, 40, 50], [50.0, 10, 90, 60]], [[10.0, 10, 30, 30]]])


def make_lad() -> LAD:
    torch.manual_seed(0)
    return LAD(student=make_paa(0), teacher=make_paa(1), distill_losses=[ToyLoss()])


def make_optimizer(model) -> torch.optim.Optimizer:
    return torch.optim.SGD(get_default_optimizer_params(model), lr=0.01, momentum=0.9)


def step(model, optimizer) -> torch.Tensor:
    losses = model.train()(BATCH)
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
    return losses["loss_toy"].detach()


def test_its_weights_are_optimized_and_move_with_the_model():
    model = make_lad()
    optimizer = make_optimizer(model)
    adapter = model.distill_losses[0].adapter
    groups = [p for group in optimizer.param_groups for p in group["params"]]
    assert any(p is adapter.weight for p in groups)
    assert not any(p is q for p in groups for q in model.teacher.parameters())
    before = adapter.weight.detach().clone()
    first = step(model, optimizer)
    assert adapter.weight.grad.abs().sum() > 0
    assert not torch.equal(adapter.weight, before)
    for _ in range(10):
        last = step(model, optimizer)
    assert last < first
    assert model.to("meta").distill_losses[0].adapter.weight.is_meta


def test_it_is_saved_and_resumed_to_the_bit():
    model = make_lad()
    optimizer = make_optimizer(model)
    step(model, optimizer)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    assert "distill_losses.0.adapter.weight" in saved[0]
    expected = [step(model, optimizer) for _ in range(3)]
    resumed = make_lad()
    again = make_optimizer(resumed)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    assert [step(resumed, again) for _ in range(3)] == expected
    for name, value in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_the_exported_student_has_nothing_of_it(tmp_path):
    model = make_lad()
    torch.save({"model": model.state_dict()}, tmp_path / "lad.pth")
    export_network(str(tmp_path / "lad.pth"), "student", str(tmp_path / "student.pth"))
    exported = torch.load(tmp_path / "student.pth", weights_only=True)["model"]
    assert exported.keys() == model.student.state_dict().keys()


def test_the_teacher_gets_no_gradient_from_it_even_where_it_is_trained():
    torch.manual_seed(0)
    switch = RoleSwitch(indicator=StdMean())
    model = CoLAD(
        student=make_paa(0), teacher=make_paa(1), switch=switch, distill_losses=[ToyLoss()]
    )
    model.train()(BATCH)["loss_toy"].backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    assert model.student.backbone.fpn_output3.weight.grad.abs().sum() > 0
    assert model.student.head.class_logits.weight.grad is None


def test_intermediates_are_collected_in_one_run():
    model = make_paa()
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append(1))
    output = model.run(model.preprocess_image(BATCH), ["head.class_tower", "backbone.bottom_up"])
    tower = output.intermediates["head.class_tower"]
    assert len(calls) == 1 and len(tower) == 3, "a tower shared by all levels has one per level"
    assert torch.equal(tower[1], model.head.class_tower(output.features[1]))
    with recorded(model, []) as nothing:
        model.run(model.preprocess_image(BATCH))
    assert nothing == {} and not model.head.class_tower._forward_hooks


def test_two_losses_of_one_class_are_told_apart():
    losses = [ToyLoss(until=0.5), ToyLoss(start=0.5)]
    model = LAD(student=make_paa(0), teacher=make_paa(1), distill_losses=losses).train()
    found = model(BATCH)
    assert found["loss_toy"] > 0 and found["loss_toy.1"] == 0
    model.progress.share = 0.6
    found = model(BATCH)
    assert found["loss_toy"] == 0 and found["loss_toy.1"] > 0


def test_a_module_that_a_network_lacks_is_one_line():
    loss = ToyLoss()
    loss.intermediates = lambda network: ("head.tower",)
    message = "model.distill_losses.0 needs the output of head.tower, which OneStage"
    with pytest.raises(ValueError, match=message):
        LAD(student=make_paa(0), teacher=make_paa(1), distill_losses=[loss])


class NotFinite(ToyLoss):
    """A loss that has diverged."""

    def forward(self, *outputs):
        """Returns infinity times the toy's."""
        return {name: loss * torch.inf for name, loss in super().forward(*outputs).items()}


@pytest.mark.parametrize(
    ("share", "counts"), [(0.0, False), (0.24, False), (0.25, True), (0.5, True), (0.51, False)]
)
def test_it_counts_from_start_to_until(share, counts):
    model = LAD(
        student=make_paa(0),
        teacher=make_paa(1),
        distill_losses=[ToyLoss(start=0.25, until=0.5)],
    ).train()
    model.progress.share = share
    losses = model(BATCH)
    assert (losses["loss_toy"] > 0) == counts
    losses["loss_toy"].backward()
    adapter = model.distill_losses[0].adapter.weight.grad
    assert adapter is not None and (adapter.abs().sum() > 0) == counts
    # The class tower and what lies before it: DDP waits for the gradient of each parameter.
    assert model.student.head.class_tower[0].weight.grad is not None


@pytest.mark.parametrize("loss", [ToyLoss, NotFinite])
def test_outside_its_schedule_it_changes_nothing(loss):
    weights = []
    for losses in ([], [loss(until=0.5)]):
        model = LAD(student=make_paa(0), teacher=make_paa(1), distill_losses=losses)
        model.progress.share = 0.75
        optimizer = make_optimizer(model.student)
        for _ in range(2):
            total = sum(model.train()(BATCH).values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        weights.append(model.student.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    "schedule", [{"start": -0.1}, {"until": 1.5}, {"start": 0.6, "until": 0.5}]
)
def test_a_schedule_that_is_no_interval(schedule):
    with pytest.raises(ValueError, match="shares of the training, 0 <= start <= until <= 1"):
        ToyLoss(**schedule)


def test_all_shipped_losses_have_a_schedule():
    found = set()
    for path in sorted((CONFIGS / "digits").glob("*.py")):
        if load_config(str(path)).model.get("distill_losses"):
            config = load_config(str(path), ["model.distill_losses.0.until=0.93"])
            loss = instantiate(config.model.distill_losses[0])
            assert loss.until == 0.93
            found.add(type(loss).__name__)
    assert {"SoftLabelLoss", "LGD", "PKD", "BCKD", "CrossKD", "PGD", "LD"} <= found
