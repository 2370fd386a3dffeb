"""A run's hold on its output folder: one run at a time, and a refused start changes nothing."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import socket
from collections.abc import Collection, Iterator
from glob import escape, glob

from lad.files import PART

logger = logging.getLogger(__name__)

LOCK = ".lock"
REFUSED = 2  # exit status of a start that was refused, as argparse's
_HELD = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Keeps other runs out of a folder, which is made, while this process uses it.

    The lock is the system's on the file ``.lock``: it ends with the process, however that ends, and
    its data-loading processes do not hold it (a lock of flock they would inherit). Under torchrun
    only rank 0 takes it. Where the file system has no locks a warning says so.

    Raises:
        ValueError: if another process uses the folder.
    """
    if int(os.environ.get("RANK", "0")):
        yield
        return
    path = os.path.join(folder, LOCK)
    missing = _missing_folders(folder)
    os.makedirs(folder, exist_ok=True)
    descriptor = _lock(path, folder)
    try:
        for part in glob(os.path.join(escape(folder), f"*{PART}")):  # of a killed process
            os.remove(part)
        yield
    finally:
        # Removed while it is held: see `_lock`.
        with contextlib.suppress(OSError):
            os.remove(path)
        os.close(descriptor)
        for made in missing:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(made)


def _lock(path: str, folder: str) -> int:
    """Returns an open file that holds the lock, or just an open file where there are no locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            import fcntl  # Windows has none.

            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            return descriptor
        except OSError as error:
            if error.errno not in _HELD:
                logger.warning(
                    f"{folder}: its file system has no locks ({error.strerror}): make sure that no "
                    "other run uses the folder"
                )
                return descriptor
            owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise ValueError(
                f"train.output_dir={folder} is used by {owner}: wait for its end, or choose "
                "another train.output_dir"
            ) from None
        # The process before may have removed the file between the two calls.
        try:
            same = os.stat(path).st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            same = False
        if same:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return descriptor
        os.close(descriptor)


def _missing_folders(folder: str) -> list[str]:
    path, missing = os.path.abspath(folder), []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


@contextlib.contextmanager
def unchanged_if_refused(folder: str, folders: Collection[str] = ()) -> Iterator[None]:
    """Undoes what a start that was refused has written to a folder.

    A start was refused if the process exits with status 2, or a signal ends it before there is any
    checkpoint. New files are removed, logs are cut off where they ended, the config comes back.

    Args:
        folder: of the run.
        folders: names of the folders in it that a run makes; others are of other runs and stay.
    """
    before = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    files = {name: os.path.join(folder, name) for name in before}
    logs = {x: os.stat(x) for n, x in files.items() if n.startswith("log.txt")}
    config = _read(os.path.join(folder, "config.yaml"))
    try:
        yield
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 0
        stopped = status > 128 and not glob(os.path.join(escape(folder), "*.pth"))
        if os.path.isdir(folder) and (status == REFUSED or stopped):
            with contextlib.suppress(FileNotFoundError):  # another process does the same
                _undo(folder, before, folders, logs, config)
        raise


def _undo(
    folder: str,
    before: set[str],
    folders: Collection[str],
    logs: dict[str, os.stat_result],
    config: bytes | None,
) -> None:
    for name in set(os.listdir(folder)) - before:
        entry = os.path.join(folder, name)
        if not os.path.isdir(entry):
            os.remove(entry)
        elif name in folders:
            shutil.rmtree(entry)
    for path, old in logs.items():
        os.truncate(path, old.st_size)
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    path = os.path.join(folder, "config.yaml")
    if config is not None and _read(path) != config:
        with open(path, "wb") as file:
            file.write(config)


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
