"""Pictures of the assignment during a training."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import make_batch, make_paa
from lad.engine.config import load_config
from lad.engine.inspection import AssignmentFigures, assignment_figures
from lad.engine.run import main
from lad.modeling.distillation import LAD

COLAD = str(Path(__file__).parent / "detector_config.py")
TOY = str(Path(__file__).parent / "toy_config.py")
(RECORD,) = make_batch([[[5.0, 5, 40, 50]]])


def draw(model, iterations: int, period: int) -> list[tuple]:
    """The (name, picture, iteration) that a hook stores in a training."""
    hook = AssignmentFigures(period=period, model=model, record=RECORD, image_format="RGB")
    hook.trainer = SimpleNamespace()
    with EventStorage() as hook.trainer.storage:
        for hook.trainer.iter in range(iterations):
            hook.trainer.storage.iter = hook.trainer.iter
            hook.after_step()
        return list(hook.trainer.storage._vis_data)


def test_pictures_in_each_period():
    pictures = draw(LAD(student=make_paa(0), teacher=make_paa(1)).train(), 7, 3)
    names = ["inspect/assignment", "inspect/costs", "inspect/teachers"]
    assert [(name, iteration) for name, _, iteration in pictures] == [
        (name, iteration) for iteration in (2, 5) for name in names
    ]
    assert all(x.dtype == torch.uint8 and x.shape[0] == 3 for _, x, _ in pictures)


def test_a_diverged_network_does_not_stop_the_training(caplog):
    model = make_paa()
    torch.nn.init.constant_(model.head.class_tower[0].weight, float("nan"))
    assert draw(model, 1, 1) == []
    assert "No picture of the assignment: the costs of the detector" in caplog.text


def test_training_with_pictures_is_the_same_to_the_bit(colad, tmp_path):
    folder = tmp_path / "run"
    main(["--config-file", COLAD, f"train.output_dir={folder}", "train.vis_period=4"])
    ours, theirs = (
        torch.load(x / "model_final.pth", weights_only=False)["model"] for x in (folder, colad)
    )
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    events = EventAccumulator(str(folder), {"images": 0}).Reload()
    names = {"inspect/assignment", "inspect/costs", "inspect/teachers"}
    assert set(events.Tags()["images"]) == names
    assert [x.step for x in events.Images("inspect/costs")] == [3, 7]


def test_off_by_default():
    config = load_config(TOY)
    assert config.train.vis_period == 0
    assert assignment_figures(config, torch.nn.Linear(1, 1)) is None


@pytest.mark.parametrize(
    ("config", "model", "message"),
    [
        (TOY, make_paa, "dataloader.test.mapper: it is no DatasetMapper"),
        (COLAD, lambda: torch.nn.Linear(1, 1), "Linear is no dense detector"),
    ],
)
def test_what_cannot_be_drawn_is_said_at_the_start(colad, config, model, message):
    config = load_config(config, ["train.vis_period=5"])
    with pytest.raises(ValueError, match=rf"^train.vis_period=5: .*{message}.*; set it to 0$"):
        assignment_figures(config, model())


def test_the_period_is_a_number(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--config-file", TOY, f"train.output_dir={tmp_path}", "train.vis_period=-1"])
    assert "train.vis_period=-1: expected a whole number of at least 0" in capsys.readouterr().err
