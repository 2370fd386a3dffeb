"""One network of a two-network checkpoint, as a plain detector's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers import make_batch, make_paa
from lad.checkpoint import export_network, load_weights
from lad.cli import export_network as tool
from lad.modeling.distillation import LAD


@pytest.fixture
def model():
    pair = LAD(student=make_paa(1), teacher=make_paa(2))
    for detector in (pair.student, pair.teacher):
        # Objects enough: what is compared below are detections.
        nn.init.constant_(detector.head.class_logits.bias, 0.0)
    return pair.eval()


@pytest.fixture
def checkpoint(model, tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": model.state_dict(), "iteration": 7}, path)
    return str(path)


@pytest.mark.parametrize("network", ["student", "teacher"])
@torch.no_grad()
def test_exported_network_detects_the_same(model, checkpoint, tmp_path, network):
    output = str(tmp_path / "plain.pth")
    count = export_network(checkpoint, network, output)
    plain = make_paa(3).eval()
    report = load_weights(plain, output, complete=True)
    assert report.missing == report.unused == report.mismatched == []
    assert count == len(plain.state_dict())
    batch = make_batch([[[10, 10, 40, 40]]])
    (found,), (expected,) = plain(batch), getattr(model, network)(batch)
    assert len(found["instances"]) > 0
    assert torch.equal(
        found["instances"].pred_boxes.tensor, expected["instances"].pred_boxes.tensor
    )
    assert torch.equal(found["instances"].scores, expected["instances"].scores)
    other = make_paa(3).eval()(batch)[0]["instances"]
    assert not torch.equal(other.scores[:5], found["instances"].scores[:5])


def test_averaged_weights_are_exported(model, tmp_path):
    averaged = {key: torch.ones_like(value) for key, value in model.state_dict().items()}
    content = {
        "model": model.state_dict(),
        "trainer": {"iteration": 3, "hooks": {"EMAHook": {"model": averaged}}},
    }
    torch.save(content, tmp_path / "model.pth")
    output = str(tmp_path / "plain.pth")
    export_network(str(tmp_path / "model.pth"), "student", output)
    weights = torch.load(output)["model"]
    assert weights and all(value.eq(1).all() for value in weights.values())


def test_teacher_is_exported_where_averages_are_the_students_alone(model, tmp_path):
    state = model.state_dict()
    averaged = {k: torch.ones_like(v) for k, v in state.items() if k.startswith("student.")}
    trainer = {"iteration": 3, "hooks": {"EMAHook": {"model": averaged}}}
    torch.save({"model": state, "trainer": trainer}, tmp_path / "model.pth")
    output = str(tmp_path / "plain.pth")
    export_network(str(tmp_path / "model.pth"), "teacher", output)
    exported = torch.load(output)["model"]
    expected = model.teacher.state_dict()
    assert exported.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in exported.items())


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_one_network_is_loaded_from_a_file_of_two_or_of_one(model, checkpoint, tmp_path, network):
    export_network(checkpoint, network, str(tmp_path / "plain.pth"))
    expected = getattr(model, network).state_dict()
    for path in (checkpoint, str(tmp_path / "plain.pth")):
        plain = make_paa(3)
        report = load_weights(plain, path, complete=True, network=network)
        assert report.unused == []
        assert all(torch.equal(value, expected[key]) for key, value in plain.state_dict().items())


def test_file_of_two_networks_for_a_plain_model_names_the_tool(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="none of its weights fits .*tools/export_network.py"):
        load_weights(make_paa(), checkpoint)
    torch.save({"model": {"student.x": torch.zeros(1)}}, tmp_path / "small.pth")
    with pytest.raises(ValueError, match="it has no teacher: its weights are those of student"):
        load_weights(make_paa(), str(tmp_path / "small.pth"), network="teacher")


def test_file_of_one_network_for_two_names_the_keys(model, tmp_path):
    torch.save({"model": make_paa().state_dict()}, tmp_path / "plain.pth")
    with pytest.raises(ValueError, match=r"it holds one network: name it in model\.student_check"):
        load_weights(model, str(tmp_path / "plain.pth"))
    torch.save({"model": {"other": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="none of its weights fits") as error:
        load_weights(model, str(tmp_path / "other.pth"))
    assert "one network" not in str(error.value)


def test_plain_checkpoint_has_no_networks(tmp_path):
    torch.save({"model": make_paa().state_dict()}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="it has no student: its weights are those of anchor_lay"):
        export_network(str(tmp_path / "model.pth"), "student", str(tmp_path / "plain.pth"))
    assert not (tmp_path / "plain.pth").exists()


def test_missing_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        export_network(str(tmp_path / "none.pth"), "student", str(tmp_path / "plain.pth"))


def test_tool_keeps_an_existing_file(checkpoint, tmp_path, monkeypatch, capsys):
    output = tmp_path / "plain.pth"
    output.write_text("precious")
    monkeypatch.setattr("sys.argv", ["export_network.py", checkpoint, str(output)])
    with pytest.raises(SystemExit):
        tool.main()
    assert "plain.pth exists: remove it" in capsys.readouterr().err
    assert output.read_text() == "precious"
