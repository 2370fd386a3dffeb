"""What a run writes to the console, and what only to log.txt.

The console has this package's lines and all warnings; log.txt has Detectron2's lines as well.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings

from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info

from lad.engine.config import find_config

logger = logging.getLogger(__name__)

LOGGERS = ("lad", "detectron2", "fvcore")
PROGRESS_PERIOD = 60  # seconds between lines on the progress of an evaluation


class _Formatter(logging.Formatter):
    """The time and the message; warnings and errors say so, in color on a terminal."""

    def __init__(self, *, color: bool):
        super().__init__("[%(asctime)s] %(message)s", datefmt="%m/%d %H:%M:%S")
        self._color = color

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        if record.levelno < logging.WARNING:
            return super().formatMessage(record)
        level = f"\033[1;31m{record.levelname}\033[0m" if self._color else record.levelname
        return f"[{record.asctime}] {level}: {record.message}"


class _LogFile(logging.FileHandler):
    """A log that a full disk does not make a traceback per line of."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _ForConsole(logging.Filter):
    """Our lines, warnings, and now and then how far Detectron2's evaluation is."""

    _next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            return True
        if record.name.startswith("lad."):
            return record.levelno >= logging.INFO
        now, message = time.monotonic(), str(record.msg)
        due = message.startswith("Inference done") and now >= self._next
        if due or message.startswith("Start inference"):
            self._next = now + PROGRESS_PERIOD
        return due


def start_log(folder: str) -> None:
    """Sends the lines of this package, Detectron2 and fvcore to the console and to log.txt.

    Only the main process writes to the console; the others have a ``log.txt.rankN`` each, as
    Detectron2's.
    """
    rank = comm.get_rank()
    os.makedirs(folder, exist_ok=True)
    name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
    file = _LogFile(os.path.join(folder, name))
    file.setFormatter(
        logging.Formatter(
            "[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt="%m/%d %H:%M:%S"
        )
    )
    handlers: list[logging.Handler] = [file]
    if rank == 0:
        console = logging.StreamHandler(sys.stdout)
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        console.setFormatter(_Formatter(color=color))
        console.addFilter(_ForConsole())
        handlers.append(console)
    for name in LOGGERS:
        named = logging.getLogger(name)
        for old in named.handlers:
            if isinstance(old, logging.FileHandler):
                old.close()
        named.handlers = list(handlers)
        named.setLevel(logging.DEBUG)
        named.propagate = name == "lad"
    silence_noise()


def silence_noise() -> None:
    """Silences warnings of other packages that a user can neither mend nor learn from."""
    # Detectron2's anchor generators call it without the argument.
    warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)
    # PyTorch's, when Detectron2's environment info asks for the folder of CUDA.
    logging.getLogger("torch.utils.cpp_extension").addFilter(_no_cuda_folder)


def _no_cuda_folder(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("No CUDA runtime is found")


def log_environment(args: argparse.Namespace) -> None:
    """Writes versions, command line and config file to log.txt only."""
    environment = [
        f"{line.split()[0]:23}not built; this package does not need it"
        if line.startswith("detectron2._C") and "not built" in line
        else line
        for line in collect_env_info().splitlines()
    ]
    logger.debug("Environment:\n" + "\n".join(environment))
    logger.debug(f"Command line arguments: {args}")
    if getattr(args, "config_file", ""):
        with open(find_config(args.config_file)) as file:
            logger.debug(f"Config file {args.config_file}:\n{file.read()}")
