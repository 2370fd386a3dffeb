"""What a study is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to train, which a study repeats over its seeds.

    Attributes:
        name: in tables and file names.
        config: relative to configs/, e.g. "digits/lad.py".
        overrides: of the config, after the study's.
        teacher: name of the method whose run becomes ``model.teacher_checkpoint``.
        student_init: name of the method whose run becomes ``model.student_checkpoint``.
        baseline: name of the method that this one is compared with, seed by seed.
        seeds: instead of the study's.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    teacher: str = ""
    student_init: str = ""
    baseline: str = ""
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Study:
    """A list of methods, seeds, and what all runs have in common.

    Attributes:
        name: of the folder docs/results/NAME.
        question: "faster" (equal, short trainings) or "better" (both converged).
        methods: a teacher stands before its students.
        overrides: of every run.
        seeds: of every method without seeds of its own.
        data: "digits", or a folder under the data folder for ``--data``.
        evaluations: along a training, evenly spaced.

    Raises:
        ValueError: if two methods have one name, or a method names another that is not before it.
    """

    name: str
    question: str
    methods: tuple[Method, ...]
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    data: str = "digits"
    evaluations: int = 4

    def __post_init__(self) -> None:
        known: set[str] = set()
        for method in self.methods:
            if method.name in known:
                raise ValueError(f"study {self.name}: two methods have the name {method.name!r}")
            for key in ("teacher", "student_init", "baseline"):
                other = getattr(method, key)
                if other and other not in known:
                    raise ValueError(
                        f"study {self.name}: {key} {other!r} of {method.name!r} is no method "
                        "before it"
                    )
            known.add(method.name)

    def method(self, name: str) -> Method:
        """Returns a method by name.

        Raises:
            ValueError: if there is none.
        """
        for method in self.methods:
            if method.name == name:
                return method
        names = ", ".join(method.name for method in self.methods)
        raise ValueError(f"study {self.name} has no method {name!r}: choose from {names}")

    def seeds_of(self, method: Method) -> tuple[int, ...]:
        """Returns the seeds that a method is trained with."""
        return self.seeds if method.seeds is None else method.seeds
