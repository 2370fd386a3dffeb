import torch

from lad.ops.ranks import mean_over_ranks, sum_over_ranks


def test_a_single_process_keeps_its_values():
    values = torch.tensor([1.0, 2.0])
    assert sum_over_ranks(values) is values
    assert torch.equal(mean_over_ranks(values), values)


def test_values_of_several_processes_are_added(monkeypatch):
    monkeypatch.setattr("lad.ops.ranks.comm.get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: x.add_(torch.tensor([3.0, 4.0])))
    values = torch.tensor([1.0, 2.0])
    assert sum_over_ranks(values).tolist() == [4, 6]
    torch.testing.assert_close(mean_over_ranks(values), torch.tensor([4 / 3, 2.0]))
    assert values.tolist() == [1, 2], "left as they were"
