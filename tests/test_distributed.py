"""Two processes train as one with the whole batch, also when one of them has no objects."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distributed_training import NAMES, train


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("distributed_training.py")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(script), str(folder)], check=True, timeout=300, env=environment)
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", NAMES)
def test_ranks_agree_with_each_other_and_with_one_process(name, ranks):
    first, second = (results[name] for results in ranks)
    assert first["roles"] == second["roles"]
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), key
    alone = train(name)
    assert first["roles"] == alone["roles"]
    torch.testing.assert_close(
        first["indicators"], alone["indicators"], rtol=1e-4, atol=1e-6, equal_nan=True
    )
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-5, atol=1e-6)
    for key, value in alone["weights"].items():
        torch.testing.assert_close(first["weights"][key], value, rtol=1e-4, atol=1e-5)


def test_an_evaluation_has_the_running_statistics_of_the_first_process(ranks):
    assert [results["shared"].tolist() for results in ranks] == [[pytest.approx(0.15)]] * 2
