"""Writing of checkpoints, and checking that their files are whole."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lad.files import written_aside


def write_checkpoint(content: Mapping[str, Any], path: str | Path) -> None:
    """Saves with torch.save; until the new file is complete and readable, the old one stays.

    Raises:
        OSError: naming the file, if it cannot be written, e.g. because the disk is full.
    """
    try:
        with written_aside(path) as part:
            _save(content, part)
            if problem := damage(part):
                raise OSError(f"what was written cannot be read back ({problem})")
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            f"{path} cannot be written: {reason}; checkpoints before it are intact"
        ) from error


def _save(content: Mapping[str, Any], path: str) -> None:
    with open(path, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # PyTorch hides the error of the disk behind one of its own.
            cause = error.__context__
            if isinstance(cause, OSError):
                raise cause from error
            raise OSError(str(error).splitlines()[0]) from error


def damage(path: str | Path) -> str:
    """Returns what is wrong with a file of torch.save, "" if nothing is.

    PyTorch itself does not compare the checksums: it loads flipped bits as weights. Files in its
    format before 1.6 have no checksums, and are not checked.
    """
    if not os.path.getsize(path):
        return "it is empty"
    with open(path, "rb") as file:
        start = file.read(4)
    if start != b"PK\x03\x04":
        return ""  # no zip: torch.load says whether it can read it
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):
        return "it is cut off or damaged"
    return f"the checksum of {wrong} is wrong" if wrong else ""
