"""Training steps of LAD, CoLAD, SoLAD and LGD against their networks alone; shares of a step."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.assignment import assign
from benchmarks.measure import Report, interleaved, peak_memory
from benchmarks.scenes import make_anchors, parse_size, random_batch, spread_predictions
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.modeling.distill_losses.bckd import BCKD
from lad.modeling.distill_losses.crosskd import CrossKD
from lad.modeling.distill_losses.ld import LD
from lad.modeling.distill_losses.lgd import LGD, LabelGuidedTeacher
from lad.modeling.distill_losses.pgd import PGD
from lad.modeling.distill_losses.pkd import PKD
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD, Distillation
from lad.modeling.one_stage import OneStageDetector
from lad.structures import Targets

CONFIGS = Path(__file__).parents[1] / "configs"
# And how much a step may take, over the student's step and the teacher's forward pass.
LOSSES = {"pkd": (PKD, 1.05), "bckd": (BCKD, 1.05), "crosskd": (CrossKD, 1.25), "pgd": (PGD, 1.15)}
GFL_LOSSES = {"ld": (LD, 1.10)}
OBJECTS = 7  # per image, COCO's mean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this mode's options."""
    parser.add_argument(
        "--size", type=parse_size, help="of the steps; default 320x512, on a GPU 800x1344"
    )
    parser.add_argument("--batch", type=int, help="default 1, on a GPU 2")
    parser.add_argument(
        "--share-size",
        type=parse_size,
        default="800x1344",
        help="of the step that the assignment is a share of",
    )
    parser.add_argument("--share-batch", type=int, default=2)
    parser.add_argument("--student", type=int, default=18, help="its ResNet's depth")
    parser.add_argument("--teacher", type=int, default=50, help="its ResNet's depth")


def run(args: argparse.Namespace, report: Report) -> None:
    """Measures ratios of steps, peak memory, and shares of the assignment and LGD's parts."""
    gpu = args.device == "cuda"
    height, width = args.size or ((800, 1344) if gpu else (320, 512))
    batch = random_batch(args.batch or (2 if gpu else 1), OBJECTS, height, width)
    measure_methods(args, report, batch)
    measure_losses(args, report, batch)
    measure_lgd(args, report, batch)
    measure_share(args, report)


def measure_methods(args: argparse.Namespace, report: Report, batch: list[dict]) -> None:
    """Interleaves the methods' steps with those of their networks alone."""
    build = {
        "student": partial(build_paa, args.student),
        "teacher": partial(build_paa, args.teacher),
    }
    solad_loss = SoftLabelLoss(class_weight=2.0, min_iou=0.5)
    models = {
        "student": build["student"](),
        "teacher": build["teacher"](),
        "lad": LAD(student=build["student"](), teacher=build["teacher"]()),
        "solad": LAD(
            student=build["student"](), teacher=build["teacher"](), distill_losses=[solad_loss]
        ),
        "colad": CoLAD(
            student=build["student"](),
            teacher=build["teacher"](),
            switch=RoleSwitch(indicator=StdMean()),
        ),
    }
    variants = {
        f"{name} step": TrainingStep(model.to(args.device), batch) for name, model in models.items()
    }
    variants["teacher forward"] = partial(forward, build["teacher"]().to(args.device).eval(), batch)
    seconds = interleaved(variants, repeats=args.repeats or 10, device=args.device)
    for name, value in seconds.items():
        report.figure(name, value * 1e3, "ms")
    # Other processes affect a CPU more than a GPU.
    limit = 1.05 if args.device == "cuda" else 1.10
    alone = seconds["student step"] + seconds["teacher forward"]
    report.at_most("step-lad", seconds["lad step"] / alone, limit)
    both = seconds["student step"] + seconds["teacher step"]
    report.at_most("step-colad", seconds["colad step"] / both, limit)
    report.at_most("step-solad", seconds["solad step"] / seconds["lad step"], 1.10)

    memory = {
        name: peak_memory(variants[name], device=args.device)
        for name in ("student step", "teacher forward", "lad step")
    }
    for name, value in memory.items():
        report.figure(f"peak memory of {name} beyond weights", value / 2**20, "MiB")
    alone = memory["student step"] + memory["teacher forward"]
    report.at_most("step-lad-memory", memory["lad step"] / alone, 1.0)


def measure_losses(args: argparse.Namespace, report: Report, batch: list[dict]) -> None:
    """Compares a step with each loss to the student's step and the teacher's forward pass."""
    for build, losses in ((build_paa, LOSSES), (build_gfl, GFL_LOSSES)):
        student, teacher = (partial(build, depth) for depth in (args.student, args.teacher))
        variants: dict[str, Callable[[], object]] = {
            "student step": TrainingStep(student().to(args.device), batch),
            "teacher forward": partial(forward, teacher().to(args.device).eval(), batch),
        }
        for name, (loss, _) in losses.items():
            model = Distillation(student=student(), teacher=teacher(), distill_losses=[loss()])
            variants[name] = TrainingStep(model.to(args.device), batch)
        seconds = interleaved(variants, repeats=args.repeats or 10, device=args.device)
        memory = {name: peak_memory(x, device=args.device) for name, x in variants.items()}
        alone, memory_alone = (x["student step"] + x["teacher forward"] for x in (seconds, memory))
        for name, (_, limit) in losses.items():
            report.at_most(f"step-{name}", seconds[name] / alone, limit)
            share = 100 * memory[name] / memory_alone
            report.figure(f"peak memory of {name}", share, "% of the student's and teacher's")


def measure_lgd(args: argparse.Namespace, report: Report, batch: list[dict]) -> None:
    """Compares the larger network with and without LGD, and counts the operations of its parts."""
    plain, model = build_paa(args.teacher), build_paa(args.teacher)
    loss = LGD(teacher=LabelGuidedTeacher(channels=256, num_classes=80))
    lgd = Distillation(student=model, distill_losses=[loss])
    variants = {
        "plain step": TrainingStep(plain.to(args.device), batch),
        "lgd step": TrainingStep(lgd.to(args.device), batch),
    }
    seconds = interleaved(variants, repeats=args.repeats or 10, device=args.device)
    memory = {name: peak_memory(step, device=args.device) for name, step in variants.items()}
    for name in variants:
        report.figure(f"{name}, PAA R{args.teacher}", seconds[name] * 1e3, "ms")
        report.figure(f"peak memory of {name} beyond weights", memory[name] / 2**20, "MiB")
    report.at_most("step-lgd", seconds["lgd step"] / seconds["plain step"], 1.60)
    report.at_most("step-lgd-memory", memory["lgd step"] / memory["plain step"], 1.60)

    counts = {}
    for name, step in variants.items():
        with FlopCounterMode(display=False, depth=None) as counter:
            step.model(batch)
        counts[name] = {
            part: sum(count.values()) for part, count in counter.get_flop_counts().items()
        }
    whole, own = counts["plain step"]["Global"], counts["lgd step"]
    for name, part in (
        ("backbone and FPN", "student.backbone"),
        ("head, both passes", "student.head"),
        ("label-guided teacher", "distill_losses.0.teacher"),
        ("adapter", "distill_losses.0.adapter"),
    ):
        share = 100 * own[f"Distillation.{part}"] / whole
        report.figure(f"lgd's forward operations, {name}", share, "% of the plain network's")


def measure_share(args: argparse.Namespace, report: Report) -> None:
    """Measures the share of the whole assignment in a full step of PAA with a ResNet-50."""
    height, width = args.share_size
    batch = random_batch(args.share_batch, OBJECTS, height, width)
    model = build_paa(50).to(args.device)
    targets = Targets.from_instances([x["instances"] for x in batch])
    anchors = make_anchors(height, width, args.device)
    predictions = spread_predictions(len(batch), anchors)
    seconds = interleaved(
        {
            "step": TrainingStep(model, batch),
            "assignment": partial(assign, model.assigner, predictions, targets),
        },
        repeats=20 if args.device == "cuda" else 3,
        device=args.device,
    )
    for name, value in seconds.items():
        report.figure(f"{name}, PAA R50, {len(batch)} x {height}x{width}", value * 1e3, "ms")
    share = 100 * seconds["assignment"] / seconds["step"]
    report.at_most("assignment-share-percent", share, 5 if args.device == "cuda" else 0.5)


def build_paa(depth: int) -> OneStageDetector:
    """Returns the shipped detector on a ResNet of this depth, random weights."""
    return instantiate(LazyConfig.load(str(CONFIGS / f"paa/r{depth}_1x.py")).model).train()


def build_gfl(depth: int) -> OneStageDetector:
    """Returns GFL on a ResNet of this depth, random weights."""
    (gfl_resnet,) = LazyConfig.load(str(CONFIGS / "common/models/gfl.py"), ("gfl_resnet",))
    return instantiate(gfl_resnet(depth)).train()


def forward(model: OneStageDetector, batch: list[dict]) -> None:
    """Runs a network without gradients."""
    with torch.no_grad():
        model.run(model.preprocess_image(batch))


class TrainingStep:
    """Forward, backward and SGD's step on one batch."""

    def __init__(self, model: nn.Module, batch: list[dict]):
        self.model = model.train()
        self.batch = batch
        parameters = [p for p in model.parameters() if p.requires_grad]
        # A rate so low that random weights do not diverge.
        self.optimizer = torch.optim.SGD(parameters, lr=1e-9, momentum=0.9, weight_decay=1e-4)

    def __call__(self) -> None:
        """Takes one step and frees the gradients, which would count in the next one's memory."""
        sum(self.model(self.batch).values()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
