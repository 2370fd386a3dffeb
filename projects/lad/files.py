"""Writing of files that a crash or a full disk leaves whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PART = ".part"


@contextlib.contextmanager
def written_aside(path: str | Path) -> Iterator[str]:
    """Gives the path of a file to write, which replaces ``path`` once it is complete.

    The file is ``path`` with ".part" at its end. It is synced to the disk, renamed, and the folder
    is synced: whenever the process or the machine stops, ``path`` is the old file or the new one.
    An error removes the part, and so the old file stays.

    Example::

        with written_aside("results.json") as part, open(part, "w") as file:
            json.dump(results, file)

    Raises:
        OSError: if the file cannot be written, e.g. because the disk is full.
    """
    path = str(path)
    part = path + PART
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(part)
        raise
    sync_folder(os.path.dirname(path) or ".")


def sync_folder(folder: str) -> None:
    """Writes the names of a folder's files to the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows, and some network file systems
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file as `written_aside`."""
    with written_aside(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write(text)
