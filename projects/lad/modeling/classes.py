"""Which of a teacher's classes are the student's, by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class ClassMap(NamedTuple):
    """From the classes of a checkpoint to those of a network.

    Attributes:
        num_classes: of the checkpoint.
        source: the checkpoint's class of each of the network's, -1 for a class that it lacks.
    """

    num_classes: int
    source: tuple[int, ...]


def match_classes(student: Sequence[str], teacher: Sequence[str]) -> ClassMap:
    """Maps the teacher's classes to the student's by name.

    Capital letters, and spaces, "_" and "-", make no difference.

    Example:
        The student's "Traffic_Light", "kiosk" and "cat" and the teacher's "cat", "dog" and "traffic
        light" give the indices (2, -1, 0).

    Raises:
        ValueError: if no name is known to both, or a name stands for several classes.
    """
    names = []
    for key, classes in (("student", student), ("teacher", teacher)):
        simple = [re.sub(r"[\s_-]+", " ", str(name)).strip().casefold() for name in classes]
        if repeated := sorted({x for x in simple if simple.count(x) > 1}):
            raise ValueError(
                f"model.{key}_classes: several of its classes are named {repeated[0]!r}: give each "
                "its own name"
            )
        names.append(simple)
    own, theirs = names
    source = tuple(theirs.index(name) if name in theirs else -1 for name in own)
    if max(source, default=-1) < 0:
        raise ValueError(
            f"model.teacher_classes: none of the student's classes ({some_names(student)}) is one "
            f"of the teacher's ({some_names(teacher)}): give the student's classes the teacher's "
            "names in model.student_classes"
        )
    return ClassMap(len(teacher), source)


def describe(classes: ClassMap, student: Sequence[str], teacher: Sequence[str]) -> str:
    """Returns a line about which classes are mapped and which are not."""
    lacking = [name for name, i in zip(student, classes.source, strict=True) if i < 0]
    unused = [name for i, name in enumerate(teacher) if i not in classes.source]
    line = (
        f"The teacher knows {len(student) - len(lacking)} of the student's {len(student)} classes"
    )
    if lacking:
        line += f", not {some_names(lacking)}, for which it gives neither labels nor soft labels"
    if unused:
        line += f"; {len(unused)} of its own {len(teacher)} are not used: {some_names(unused)}"
    return line


def some_names(names: Sequence[str], number: int = 10) -> str:
    """Returns the first names, comma-separated."""
    return ", ".join(map(str, names[:number])) + (", ..." if len(names) > number else "")
