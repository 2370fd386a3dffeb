"""Imports go down only: structures <- ops <- assignment <- modeling <- engine <- predict <- cli."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "projects/lad"
# What each part of the package may import besides itself.
MAY_IMPORT = {
    "compat": set(),
    "files": set(),
    "media": {"data"},
    "metrics": {"files"},
    "structures": set(),
    "ops": {"structures"},
    "assignment": {"structures", "ops"},
    "modeling": {"compat", "structures", "ops", "assignment"},
    "checkpoint": {"files", "modeling"},
    "inspection": {"structures", "assignment", "modeling"},
    "data": {"compat"},
    "visualize": {"media", "metrics"},
    "engine": {
        *("compat", "files", "metrics", "structures", "ops", "assignment", "modeling"),
        *("checkpoint", "data", "visualize", "inspection"),
    },
    "export": {"modeling"},
    "predict": {"media", "modeling", "checkpoint", "data", "visualize", "engine", "export"},
    "cli": {
        *("files", "media", "modeling", "checkpoint", "data", "visualize"),
        *("inspection", "engine", "export", "predict"),
    },
}


def parts_imported(source: str, module: str) -> set[str]:
    """Returns the parts of the package that a module's source imports, wherever it does.

    Args:
        source: Python.
        module: its dotted name, such as lad.ops.boxes; of a package lad.ops.__init__.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    found = [name.split(".") for name in names]
    return {parts[1] for parts in found if parts[0] == "lad" and len(parts) > 1}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def forbidden(source: str, module: str) -> set[str]:
    """Returns the parts that a module imports but must not."""
    part = module.split(".")[1]
    return parts_imported(source, module) - MAY_IMPORT[part] - {part, "__version__"}


PATHS = sorted(x for x in PACKAGE.rglob("*.py") if part_of(x) != "__init__")


@pytest.mark.parametrize("path", PATHS, ids=lambda x: str(x.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    module = ".".join(["lad", *path.relative_to(PACKAGE).with_suffix("").parts])
    assert part_of(path) in MAY_IMPORT, "a new part: say in MAY_IMPORT what it may import"
    assert not forbidden(path.read_text(), module)


def test_nothing_that_may_be_imported_imports_back():
    for part, below in MAY_IMPORT.items():
        assert all(part not in MAY_IMPORT[other] for other in below)


@pytest.mark.parametrize(
    ("source", "module", "wrong"),
    [
        ("from lad.modeling.network import DenseNetwork", "lad.assignment.paa", {"modeling"}),
        ("import lad.engine", "lad.modeling.network", {"engine"}),
        ("from lad import assignment", "lad.ops.boxes", {"assignment"}),
        ("from ..assignment import paa", "lad.ops.boxes", {"assignment"}),
        ("from .. import modeling", "lad.ops.__init__", {"modeling"}),
        ("def f():\n    from lad.engine import setup", "lad.checkpoint.load", {"engine"}),
        ("from lad.structures import Anchors\nimport torch", "lad.ops.boxes", set()),
        ("from .boxes import paired_iou", "lad.ops.focal", set()),
        ("from lad import __version__", "lad.checkpoint.export", set()),
    ],
)
def test_imports_that_go_up_are_found(source, module, wrong):
    assert forbidden(source, module) == wrong
