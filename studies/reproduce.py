"""Runs a table of the LAD paper in miniature, or says how to run it on COCO.

    python tools/reproduce.py                          list the tables
    python tools/reproduce.py table2 --workers 2       on digit scenes: train what is not stored
    python tools/reproduce.py table2 --results DIR     on digit scenes: train all that DIR lacks
    python tools/reproduce.py table2 --data coco       the commands, and the paper's AP against ours

On COCO nothing is started: each row prints its command, what it needs before, and its length.
`--dry-run` behind a command prints the time and memory that it takes on your GPUs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from lad.engine.config import shipped_config
from studies.digits_paper import TABLES, Row, paper_ap, paper_table, study
from studies.runner.jobs import Runner
from studies.runner.tables import markdown

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="reproduce.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", nargs="?", choices=list(TABLES), help="of the LAD paper")
    parser.add_argument("--data", choices=("digits", "coco"), default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", help="on digits; by default 0 1 2")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time on digits")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results", metavar="DIR")
    parser.add_argument("--show", action="store_true", help="on digits: train nothing")
    args = parser.parse_args()
    if args.table is None:
        print("\n".join(f"{name}: {len(rows)} rows" for name, rows in TABLES.items()))
        return 0
    rows = TABLES[args.table]
    try:
        if args.data == "coco":
            print("\n\n".join([*map(coco_row, rows), coco_table(rows)]))
            return 0
        runner = Runner(study, args.results / study.name, Path("output/study"), Path())
        if not args.show:
            names = [row.method for row in rows]
            names += [study.method(name).baseline for name in names]
            runner.run_all([name for name in names if name], args.seeds, args.workers)
        print(paper_table(rows, runner.results))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 1
    return 0


def coco_row(row: Row) -> str:
    """Returns the command of a row, with what it needs and how long it is."""
    config = LazyConfig.load(shipped_config(row.config))
    lines = [f"# {row.method}, {config.train.max_iter:,} iterations of {batch_size(config)} images"]
    for key in ("train.init_checkpoint", "model.student_checkpoint", "model.teacher_checkpoint"):
        if path := OmegaConf.select(config, key):
            there = "" if Path(path).is_file() else " (not there yet)"
            lines.append(f"# needs {path}{there}: {origin(path)}")
    lines.append(f"python train_net.py --config-file configs/{row.config} --num-gpus 8")
    return "\n".join(lines)


def batch_size(config: DictConfig) -> int:
    """Returns the images of a step."""
    return config.dataloader.train.total_batch_size * config.train.accumulate


def origin(path: str) -> str:
    """Returns where a checkpoint comes from."""
    if not path.startswith("output/"):
        return "its address is in configs/common/weights.py"
    config = Path(path).parent.relative_to("output").with_suffix(".py")
    return f"train configs/{config}, or see docs/checkpoints.md"


def coco_table(rows: tuple[Row, ...]) -> str:
    """Returns the paper's AP beside those of the finished trainings in output/."""
    lines = []
    for row in rows:
        config = LazyConfig.load(shipped_config(row.config))
        file = Path(config.train.output_dir) / "results.json"
        ours = ""
        if file.is_file():
            figures = json.loads(file.read_text())["figures"]
            ours = ", ".join(f"{x['bbox']['AP']:.1f}" for x in figures.values() if "bbox" in x)
        lines.append([row.config, paper_ap(row), ours])
    return markdown(["config", "AP (paper)", "AP (ours)"], lines)


if __name__ == "__main__":
    sys.exit(main())
