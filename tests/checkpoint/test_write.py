"""Written checkpoints and their checksums; the rest is in tests/faults/checkpoint.py."""

from __future__ import annotations

import errno

import pytest
import torch

from lad.checkpoint.write import damage, write_checkpoint


def test_written_and_whole(tmp_path):
    path = tmp_path / "model.pth"
    write_checkpoint({"model": {"w": torch.arange(3)}}, path)
    assert damage(path) == ""
    assert torch.load(path, weights_only=True)["model"]["w"].tolist() == [0, 1, 2]


def test_checksums_are_compared(tmp_path):
    path = tmp_path / "model.pth"
    write_checkpoint({"w": torch.full((3,), 7.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((3,), 7.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    assert "checksum" in damage(path)
    path.write_bytes(b"")
    assert "empty" in damage(path)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    write_checkpoint({"w": 1}, path)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="model.pth cannot be written: No space left on device"):
        write_checkpoint({"w": 2}, path)
    assert torch.load(path, weights_only=True) == {"w": 1}
    assert [x.name for x in tmp_path.iterdir()] == ["model.pth"]
