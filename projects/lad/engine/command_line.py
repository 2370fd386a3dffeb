"""The command line of train_net.py."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from detectron2.engine import default_argument_parser


def parse_arguments(
    argv: Sequence[str] | None = None, *, examples: str | None = None
) -> argparse.Namespace:
    """Reads Detectron2's flags and this project's own, before, between or after the overrides.

    Args:
        argv: arguments, by default this process' own.
        examples: shown at the end of ``--help``.
    """
    parser = default_argument_parser(epilog=examples)
    for action in parser._actions:
        if action.dest == "opts":
            # Detectron2's "all that is left" would take flags after the first override, too.
            action.nargs = argparse.ZERO_OR_MORE
            action.metavar = "path.key=value"
            action.help = "change the config"
        elif action.dest == "resume":
            action.help = "go on from the last checkpoint in the output folder, if there is one"
    parser.add_argument(
        "--data", metavar="FOLDER", help="labeled images for training and evaluation: docs/data.md"
    )
    parser.add_argument(
        "--unlabeled", metavar="FOLDER", help="further training images, without labels"
    )
    add_trust(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, take two steps, tell memory and time, leave nothing behind",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        default="",
        help="repeat the step of a run's nonfinite_*.pt; the config is the run's by default",
    )
    args = parser.parse_intermixed_args(argv)
    if args.dry_run and (args.resume or args.eval_only):
        parser.error("--dry-run goes with neither --resume nor --eval-only")
    if args.replay and (args.resume or args.eval_only or args.dry_run):
        parser.error("--replay goes with none of --resume, --eval-only and --dry-run")
    if args.replay and not args.config_file:
        args.config_file = os.path.join(os.path.dirname(args.replay), "config.yaml")
    return args


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Adds the flag ``--trust``, the same for every command that reads a config."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="a .yaml config, its overrides or a .pt2 file may run any code: docs/security.md",
    )
