"""Signals that stop a run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader, Dataset

from lad.engine import signals
from lad.engine.signals import Stopped, StopSignals, let_workers_finish, passed_on, stoppable


@pytest.fixture(autouse=True)
def handlers():
    """Default handlers, as a process in the foreground has them."""
    old = {number: signal.getsignal(number) for number in signals.NAMES}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_raised_where_it_arrives_and_waits_while_deferred(number, status):
    with StopSignals() as received:
        with pytest.raises(Stopped) as stop:
            send(number)
        assert stop.value.exit_status == status
        assert received.received == number and received.raised
    with StopSignals() as received, pytest.raises(Stopped):
        with received.deferred():
            send(number)
            assert received.received == number and not received.raised
            send(number)  # torchrun passes it on
        raise AssertionError("the end of `deferred` raises it")


def test_at_once_inside_of_deferred():
    with StopSignals() as received, pytest.raises(Stopped), received.deferred():
        with received.deferred(False):
            send()
        raise AssertionError
    with StopSignals() as received, pytest.raises(Stopped), received.deferred():
        send()
        with received.deferred(False):
            raise AssertionError("a signal that waits is raised before")


def test_an_error_is_not_hidden_by_a_signal_that_waits():
    with StopSignals() as received, pytest.raises(KeyError), received.deferred():
        send()
        raise KeyError


def test_handlers_come_back_and_ignored_signals_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as received:
        send(signal.SIGINT)
        assert not received.received
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_stoppable_ends_with_the_signals_status_and_one_line(caplog):
    with pytest.raises(SystemExit) as exit_, stoppable() as received:
        received.message = "saved"
        send()
    assert exit_.value.code == 143
    assert caplog.messages[-1] == "Stopped by SIGTERM: saved"


def test_a_late_second_ctrl_c_kills():
    code = (
        "import os, signal; from lad.engine.signals import StopSignals\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with StopSignals() as received, received.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    received._time -= 10\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('survived')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == -signal.SIGINT
    assert not result.stdout and not result.stderr


class Signaled(Dataset):
    """Sends both signals to its worker."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        return index


def test_workers_of_a_loader_survive_a_signal_to_all():
    with StopSignals() as received:
        loader = DataLoader(Signaled(), batch_size=None, num_workers=1)
        let_workers_finish(loader)
        assert list(loader) == [0, 1, 2, 3]
        assert not received.received
    let_workers_finish([])  # any other loader


def test_other_forked_processes_end_as_ever():
    with StopSignals() as received:
        pool = multiprocessing.get_context("fork").Pool(1)
        pool.apply(os.getpid)
        pool.terminate()
        pool.join()
        assert not received.received


def test_their_parent_ends_workers():
    loader = DataLoader(Signaled(), batch_size=None, num_workers=1)
    let_workers_finish(loader)
    batches = iter(loader)
    assert next(batches) == 0
    (worker,) = batches._workers
    # The main process would take the end of a worker for an error.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    worker.terminate()
    worker.join(timeout=30)
    signal.signal(signal.SIGCHLD, handler)
    assert worker.exitcode == 0


def test_a_waiting_process_passes_sigterm_on(monkeypatch):
    ended = []
    child = SimpleNamespace(terminate=lambda: ended.append(True))
    monkeypatch.setattr(signals.multiprocessing, "active_children", lambda: [child])
    with passed_on():
        send(signal.SIGINT)
        assert not ended
        send(signal.SIGTERM)
    assert ended == [True]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
