"""Stopping of a run by SIGINT (Ctrl-C) or SIGTERM."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
# torchrun passes on a Ctrl-C that the terminal has sent to all processes already.
REPEATED = 2.0  # seconds


class Stopped(BaseException):
    """Ends a run that was asked to stop. No Exception, so that nothing takes it for an error.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"Stopped by {NAMES[signal.Signals(number)]}")
        self.number = number

    @property
    def exit_status(self) -> int:
        """The process' exit status, as a shell reports a signal: 130 or 143."""
        return 128 + self.number


class Failed(BaseException):
    """Ends a run with one line and status 1. No Exception: Detectron2 logs those's tracebacks."""


class Refused(Failed):
    """Ends a run because of its data, after what is done is saved: the line also says where."""


class StopSignals:
    """Catches SIGINT and SIGTERM while it is entered.

    A signal raises `Stopped` where it arrives; in `deferred` it waits in ``received``. Further ones
    change nothing, but a Ctrl-C more than two seconds after the first kills the process. Signals
    that the process ignores (as a background job of a script ignores Ctrl-C) stay so.

    Attributes:
        received: number of the signal; 0 for none.
        raised: whether it was raised where it arrived, or the training ends for another reason
            in the middle of an evaluation: `LatestCheckpointer` then saves.
        message: what the run says about it.
    """

    def __init__(self) -> None:
        self.received = 0
        self.raised = False
        self.message = "nothing new was saved"
        self._deferred = False
        self._time = 0.0
        self._process = 0
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self._process = os.getpid()
        # Only the main thread can set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in NAMES:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old = {}

    def _handle(self, number: int, _frame: object) -> None:
        if os.getpid() != self._process:
            # A forked process, such as a pool's, has inherited this handler.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self.received:
            self.received, self._time = number, time.monotonic()
            if not self._deferred:
                self._raise()
            hint = "; Ctrl-C again kills it" if number == signal.SIGINT else ""
            logger.info(f"{NAMES[signal.Signals(number)]}: stopping after this iteration{hint}")
        elif number == signal.SIGINT and time.monotonic() - self._time > REPEATED:
            signal.signal(number, signal.SIG_DFL)
            os.kill(self._process, number)

    def _raise(self) -> None:
        self.raised = True
        raise Stopped(self.received)

    @contextmanager
    def deferred(self, deferred: bool = True) -> Iterator[None]:
        """While it runs, signals wait; with False, they raise at once inside of another.

        Raises:
            Stopped: at a change to raising, if a signal waits.
        """
        before, self._deferred = self._deferred, deferred
        try:
            if self.received and not deferred:
                self._raise()
            yield
        finally:
            self._deferred = before
        if self.received and not before:
            self._raise()


def let_workers_finish(loader: Any) -> None:
    """Makes the workers of a `DataLoader` survive a signal to the whole group of processes.

    A terminal's Ctrl-C and batch systems send it to all, and a step cannot be finished without its
    data. SIGTERM of their own parent ends the workers.
    """
    if isinstance(loader, DataLoader) and loader.worker_init_fn is None:
        loader.worker_init_fn = _obey_the_parent_only


def _obey_the_parent_only(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


@contextmanager
def stoppable() -> Iterator[StopSignals]:
    """Catches signals, and ends the process with status 130 or 143 when one has stopped it.

    A run that has `Failed` ends with its line and status 1.
    """
    signals = StopSignals()
    try:
        with signals:
            yield signals
    except Stopped as stop:
        # Before the log is set up, Python writes warnings to stderr.
        level = logging.INFO if logging.getLogger("lad").handlers else logging.WARNING
        logger.log(level, f"{stop}: {signals.message}")
        sys.exit(stop.exit_status)
    except Failed as failure:
        logger.error(f"{failure}; {signals.message}" if isinstance(failure, Refused) else failure)
        sys.exit(1)


@contextmanager
def passed_on() -> Iterator[None]:
    """While it runs, the process waits for others that it has started, which get its SIGTERM.

    A terminal sends them Ctrl-C itself.
    """

    def terminate(*_: object) -> None:
        for process in multiprocessing.active_children():
            process.terminate()

    # Not SIG_IGN, which they would inherit.
    handlers = {signal.SIGTERM: terminate, signal.SIGINT: lambda *_: None}
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
