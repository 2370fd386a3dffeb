"""Runs the commands of README.md and docs/ on small data, in a temporary folder.

    python tools/check_docs.py [PAGE ...]

A command is an indented line that starts with one of `PROGRAMS`. Trainings run for two iterations;
of those that need COCO only flags, config and overrides are checked. Prints what became of each
command; exit status 1 if one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lad.engine.command_line import parse_arguments
from lad.engine.config import load_config
from lad.media import VideoWriter, read_image

ROOT = Path(__file__).resolve().parents[1]
COMMAND = re.compile(r"    (?:[A-Z_]+=\S+ )*(\S+)")
PROGRAMS = ("python", "torchrun", "lad", "make", "pip", "python3")
# Commands that are not run, and why.
LEFT_OUT = {
    r"^make |(^|/)pip |-m venv |install_detectron2": "installs, or is what CI runs",
    r"tools/(check_configs|study|reproduce|benchmark|probe_faults)\.py": (
        "long; tests run it on a small scale"
    ),
    r"tools/(test_matrix|audit)\.py": "installs other versions, or lists those that are here",
    r"pretrained=True|--unsafe|DeepPCB|datasets/pcb": "needs files from elsewhere",
}
# What a training's command becomes. The names of the test images come last: they may not be known.
SHORT = (
    "train.max_iter=2",
    "train.eval_period=2",
    "train.checkpointer.period=2",
    "train.log_period=1",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "train.device=cpu",
)
SMALL_TEST = "dataloader.test.dataset.names=few_digits.json"
RUN_DISTRIBUTED = "torch.distributed.run"
LIMIT = 300  # seconds of a command
# Trainings whose results the pages use.
FIRST = (
    "python train_net.py --config-file configs/digits/teacher.py",
    "python train_net.py --config-file configs/digits/fcos_teacher.py",
    "python train_net.py --config-file configs/digits/gfl_teacher.py",
    "python train_net.py --config-file configs/digits/lad.py",
    "python train_net.py --config-file configs/digits/paa_lgd.py",
    "python train_net.py --config-file configs/quick/teacher.py --data FOLDER",
    "python train_net.py --config-file configs/quick/paa.py --data FOLDER",
    "python train_net.py --config-file configs/quick/lad.py --data FOLDER",
)


class Command(NamedTuple):
    """A command of a page, without comment and continuation."""

    page: str
    line: int
    text: str


def find_commands(page: str, text: str) -> Iterator[Command]:
    r"""Yields the commands of a Markdown page.

    Example: of the lines "    python a.py \" and "        --b  # c" one with the text
    "python a.py --b".
    """
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        program = COMMAND.match(line)
        if not program or Path(program[1]).name not in PROGRAMS:
            continue
        end = number
        while lines[end - 1].endswith("\\"):
            end += 1
        parts = [re.sub(r"\s+#.*|\\$", "", x).strip() for x in lines[number - 1 : end]]
        yield Command(page, number, " ".join(parts))


def prepare(folder: Path) -> None:
    """Fills a working directory: the project's files, and small data under the docs' names."""
    for path in ROOT.iterdir():
        if path.name not in ("output", "datasets", ".git", ".venv"):
            (folder / path.name).symlink_to(path)
    code = "import lad.data; from detectron2.data import DatasetCatalog as C; C.get('digits_val')"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    scenes = Path(os.environ.get("DETECTRON2_DATASETS", folder / "datasets")) / "digits"
    coco = json.loads((scenes / "annotations/val.json").read_text())
    (folder / "FOLDER/annotations").mkdir(parents=True)
    for split, count in (("train", 6), ("val", 4)):
        (folder / "FOLDER/annotations" / f"{split}.json").write_text(json.dumps(first(coco, count)))
        for image in coco["images"][:count]:
            target = folder / "FOLDER" / split / image["file_name"]
            target.parent.mkdir(exist_ok=True)
            shutil.copy(scenes / "val" / image["file_name"], target)
    few = first(coco, 6)
    (folder / "few_digits").mkdir()
    photos = []
    for image in few["images"]:
        photos.append(folder / "few_digits" / image["file_name"])
        shutil.copy(scenes / "val" / image["file_name"], photos[-1])
        image["file_name"] = f"few_digits/{image['file_name']}"
    (folder / "few_digits.json").write_text(json.dumps(few))
    for target in ("photo.jpg", "photos/a.png", "photos/b.png", "more/c.png"):
        (folder / target).parent.mkdir(exist_ok=True)
        Image.open(photos.pop()).save(folder / target)
    film = VideoWriter(folder / "film.mp4", 10.0)
    for _ in range(3):
        film.write(read_image(folder / "photo.jpg"))
    film.close()
    (folder / "weights").mkdir()


def remove(paths: set[Path]) -> None:
    """Removes what the commands of a page have written: the next page may use the same names."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def first(coco: dict, count: int) -> dict:
    """Returns the first images of a COCO annotation file, with their objects."""
    images = [dict(image) for image in coco["images"][:count]]
    ids = {image["id"] for image in images}
    objects = [x for x in coco["annotations"] if x["image_id"] in ids]
    return {**coco, "images": images, "annotations": objects}


def run(text: str, folder: Path) -> str:
    """Runs a command in a folder; returns what became of it."""
    for pattern, reason in LEFT_OUT.items():
        if re.search(pattern, text):
            return f"left out: {reason}"
    words = [x for x in shlex.split(text) if not re.match("[A-Z_]+=", x)]
    trains = "train_net.py" in text or words[:2] in (["lad", "train"], ["lad", "eval"])
    config = words[words.index("--config-file") + 1] if trains else ""
    if re.match(r"configs/(?!digits|quick)", config):
        try:
            program = next(i for i, x in enumerate(words) if x.endswith(("train_net.py", "lad")))
            arguments = parse_arguments(words[program + 1 :])
            load_config(str(folder / config), arguments.opts)
        except (ValueError, OSError) as error:
            return f"FAILED: {error}"
        except SystemExit:
            return "FAILED: wrong flags"
        return "checked: flags, config and overrides; it needs COCO"
    return execute(shorten(words, folder) if trains else words, folder)


def shorten(words: list[str], folder: Path) -> list[str]:
    """Returns a training's command with few iterations; a new training's folder is removed."""
    if "--eval-only" in words:
        return [*words, *(x for x in SHORT if x.startswith(("dataloader", "train.device")))]
    config = words[words.index("--config-file") + 1]
    output = load_config(str(folder / config)).train.output_dir
    if not {"--resume", "--dry-run"} & set(words):
        shutil.rmtree(folder / output, ignore_errors=True)
    small = [] if "--data" in words else [SMALL_TEST]
    return [*words, *SHORT, *small]


def execute(words: list[str], folder: Path) -> str:
    """Runs the words of a command; returns "ran", or how it failed."""
    modules = {"python": (), "lad": ("-m", "lad.cli.main"), "torchrun": ("-m", RUN_DISTRIBUTED)}
    command = [sys.executable, *modules[Path(words[0]).name], *words[1:]]
    paths = [str(ROOT / "projects"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return f"FAILED: not finished after {LIMIT} s"
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        return f"FAILED with {done.returncode}: {lines[-1]}"
    return "ran"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="default: all of them")
    args = parser.parse_args(argv)
    pages = [Path(x).resolve() for x in args.pages] or [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        commands = [Command("(before)", 0, text) for text in FIRST]
        for page in pages:
            commands += find_commands(str(page.relative_to(ROOT)), page.read_text())
        before: set[Path] = set()
        for previous, command in zip([None, *commands], commands, strict=False):
            if command.line and not before:
                for name in ("TEACHER.pth", "my_teacher.pth"):
                    shutil.copy(folder / "output/digits/teacher/model_final.pth", folder / name)
                before = set(folder.iterdir())
            if before and previous is not None and previous.page != command.page:
                remove(set(folder.iterdir()) - before)
            outcome = run(command.text, folder)
            counts[re.split("[: ]", outcome)[0]] += 1
            print(f"{command.page}:{command.line}: {command.text}\n    {outcome}", flush=True)
    print(f"docs: {len(commands)} commands, " + ", ".join(f"{n} {x}" for x, n in counts.items()))
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
