"""The `lad` command: one name for train_net.py and tools/.

lad train --config-file quick/paa.py --data FOLDER
lad COMMAND --help
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from lad import __version__

# Module with a `main(argv)`, arguments before the user's, and what the command does.
COMMANDS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "train": ("lad.engine.run", (), "train a detector"),
    "eval": ("lad.engine.run", ("--eval-only",), "evaluate a checkpoint"),
    "predict": ("lad.cli.predict", (), "detect objects in images and videos"),
    "inspect": ("lad.cli.inspect_assignment", (), "show which anchors the networks assign"),
    "export": ("lad.cli.export_model", (), "write a detector as ONNX or PyTorch program"),
    "check-data": ("lad.cli.check_dataset", (), "check a folder of labeled images"),
    "export-network": ("lad.cli.export_network", (), "take one network out of a checkpoint"),
    "convert": ("lad.cli.convert_checkpoint", (), "convert a checkpoint of another project"),
}


def usage() -> str:
    """Returns the list of commands."""
    lines = [f"  {name:16}{purpose}" for name, (_, _, purpose) in COMMANDS.items()]
    return "\n".join(["usage: lad COMMAND ...", "", *lines, "", "lad COMMAND --help says more"])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("-h", "--help"):
        sys.stdout.write(f"{usage()}\n")
        return 0
    if arguments == ["--version"]:
        sys.stdout.write(f"lad {__version__}\n")
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        wrong = f"lad: error: there is no command {arguments[0]!r}\n" if arguments else ""
        sys.stderr.write(f"{wrong}{usage()}\n")
        return 2
    command, *rest = arguments
    module, first, _ = COMMANDS[command]
    # argparse and error messages name the program by this.
    sys.argv = [f"lad {command}", *first, *rest]
    return import_module(module).main([*first, *rest]) or 0


if __name__ == "__main__":
    sys.exit(main())
