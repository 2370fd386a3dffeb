"""Runs of a study, each a training in its own process and folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lad.engine.command_line import parse_arguments
from lad.engine.config import load_config
from lad.engine.data import load_config_with_data
from lad.engine.run import start_training
from lad.engine.setup import resolve_device
from studies.runner import results
from studies.runner.definition import Method, Study

Job = tuple[Method, int]  # with the seed

LOADING = threading.Lock()  # Detectron2 cannot load configs in several threads
CONFIG_HASH = "config_hash"  # file in a run's folder
# They change where a run writes, not what comes out.
NO_PART_OF_HASH = ("train.output_dir", "train.seed", "dataloader.train.num_workers")


@dataclass(frozen=True)
class Runner:
    """Runs the methods of a study.

    Attributes:
        study: the study.
        results: folder of the figures, one json per run.
        output: folder of the trainings.
        data: folder that ``study.data`` is relative to.
        running: trainings at this moment.
        stopping: no further training is started.
        hashes: `config_hash` of methods by name.
    """

    study: Study
    results: Path
    output: Path
    data: Path
    running: set[subprocess.Popen] = field(default_factory=set)
    stopping: threading.Event = field(default_factory=threading.Event)
    hashes: dict[str, str] = field(default_factory=dict)

    def terminate(self) -> None:
        """Stops the trainings: they save their state, so that the next call resumes them."""
        self.stopping.set()
        for process in list(self.running):
            process.terminate()

    def run_all(self, names: Sequence[str], seeds: Sequence[int] | None, workers: int) -> None:
        """Trains what is not stored yet; a run starts once the weights that it needs are there.

        Args:
            names: of methods.
            seeds: by default those of each method; of a method with seeds of its own, such as a
                teacher, those among them.
            workers: trainings at a time.

        Raises:
            RuntimeError: if a training fails; those that run already are finished first.
            ValueError: if a stored run or a folder was trained with another config, or if none of
                the methods has the seeds.
        """
        methods = [method for method in self.study.methods if method.name in names]
        chosen = {
            method.name: self.study.seeds_of(method)
            if seeds is None
            else [x for x in seeds if method.seeds is None or x in method.seeds]
            for method in methods
        }
        jobs = [
            (method, seed)
            for seed in sorted({seed for x in chosen.values() for seed in x})
            for method in methods
            if seed in chosen[method.name]
        ]
        if methods and not jobs:
            raise ValueError(
                f"--seeds {' '.join(map(str, seeds or ()))}: {', '.join(chosen)} in studies/ are "
                "trained with other seeds only"
            )
        jobs = [job for job in jobs if not self.is_stored(*job)]
        sources = self.sources([method for method, _ in jobs])
        jobs = [*sources, *(job for job in jobs if job not in sources)]
        pool = ThreadPoolExecutor(workers)
        running: set[Future] = set()
        try:
            while jobs or running:
                ready = [job for job in jobs if not self.sources([job[0]])]
                running |= {pool.submit(self.run, *job) for job in ready}
                jobs = [job for job in jobs if job not in ready]
                if not running:
                    names = ", ".join(dict.fromkeys(method.name for method, _ in jobs))
                    raise RuntimeError(
                        f"{names}: another process trains the weights to start from; when it has "
                        "finished, run this again"
                    )
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def is_stored(self, method: Method, seed: int) -> bool:
        """Returns whether a run need not be trained, because this or another study has stored it.

        Raises:
            ValueError: if it was trained with another config.
        """
        key = self.config_hash(method)
        path = results.path(self.results, method.name, seed)
        if path.is_file():
            known = results.read(path)["config_hash"]
            if known not in (None, key):
                raise ValueError(
                    f"{path} was trained with another config ({known}, not {key}): remove it to "
                    "train again"
                )
            return True
        same = results.find(self.results.parent, key, seed)
        if same is not None:
            results.store(path, results.read(same) | self.labels(method, seed))
        return same is not None

    def sources(self, methods: Sequence[Method]) -> list[Job]:
        """Returns the runs whose weights these methods start from and that are not there."""
        names = {x for method in methods for x in (method.teacher, method.student_init)} - {""}
        found = [self.study.method(name) for name in names]
        jobs = [(x, self.seed_of_weights(x)) for x in self.study.methods if x in found]
        for job in jobs:
            self.check_folder(*job)
        return [job for job in jobs if not self.weights(*job).is_file()]

    def check_folder(self, method: Method, seed: int) -> None:
        """Raises ValueError if a run's folder holds a training with another config."""
        folder = self.folder(method, seed)
        mark, stored = folder / CONFIG_HASH, results.path(self.results, method.name, seed)
        known = "unknown"
        if mark.is_file():
            known = mark.read_text()
        elif stored.is_file():  # trained before there were marks
            known = results.read(stored)["config_hash"]
        if (folder / "last_checkpoint").is_file() and known != self.config_hash(method):
            raise ValueError(
                f"{folder} holds a training with another config ({known}, not "
                f"{self.config_hash(method)}): remove it to train again"
            )

    def run(self, method: Method, seed: int) -> None:
        """Trains a method with one seed and stores its figures.

        Raises:
            RuntimeError: if the training fails, or if all are being stopped.
            ValueError: if its folder holds a training with another config.
        """
        if self.stopping.is_set():
            raise RuntimeError(f"{method.name}, seed {seed}: stopped before its start")
        folder = self.folder(method, seed)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "study.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{method.name}, seed {seed}: another process trains it", flush=True)
                return
            path = results.path(self.results, method.name, seed)
            if path.is_file() and self.weights(method, seed).is_file():
                return  # another process has trained it meanwhile
            self.check_folder(method, seed)
            (folder / CONFIG_HASH).write_text(self.config_hash(method))
            resumed = (folder / "last_checkpoint").is_file()
            start = time.time()
            arguments = ["--resume", *self.arguments(method, seed)]
            with start_training(arguments, folder / "output.txt", threads=1) as process:
                self.running.add(process)
                if self.stopping.is_set():
                    process.terminate()
                status = process.wait()
            self.running.remove(process)
            if status:
                log = folder / "output.txt"
                raise RuntimeError(f"{method.name}, seed {seed}: status {status}, see {log}")
            seconds = None if resumed else round(time.time() - start)
            if path.is_file():  # of a run whose weights are gone
                print(f"{method.name}, seed {seed}: trained again; the stored figures stay")
                return
            labels = self.labels(method, seed) | {"config_hash": self.config_hash(method)}
            device = resolve_device(self.config(method).train.device)
            results.store(path, labels | results.figures(folder, seconds, device))
        print(f"{method.name}, seed {seed}: done", flush=True)

    def seed_of_weights(self, method: Method) -> int:
        """Returns the seed of the one run that other methods start from."""
        return self.study.seeds_of(method)[0]

    def labels(self, method: Method, seed: int) -> dict:
        """Returns how a stored run names itself."""
        return {
            "study": self.study.name,
            "method": method.name,
            "seed": seed,
            "data": self.study.data,
            "config": method.config,
            "overrides": [*self.study.overrides, *method.overrides],
        }

    def folder(self, method: Method, seed: int) -> Path:
        """Returns the folder of a training."""
        return self.output / self.study.name / f"{method.name}_seed{seed}"

    def weights(self, method: Method, seed: int) -> Path:
        """Returns the checkpoint that a training ends with."""
        return self.folder(method, seed) / "model_final.pth"

    def arguments(self, method: Method, seed: int) -> list[str]:
        """Returns the command line of a training."""
        config = self.config(method)
        period = -(-config.train.max_iter // self.study.evaluations)
        return [
            *self.source(method),
            *self.overrides(method),
            f"train.output_dir={self.folder(method, seed)}",
            f"train.seed={seed}",
            f"train.eval_period={period}",
            "train.eval_teacher=false",
            "train.checkpointer.max_to_keep=1",
        ]

    def source(self, method: Method) -> list[str]:
        """Returns the flags that name config and data."""
        flags = ["--config-file", method.config]
        if self.study.data != "digits":
            flags += ["--data", str(self.data / self.study.data)]
        return flags

    def overrides(self, method: Method) -> list[str]:
        """Returns the overrides of study and method, with the weights to start from."""
        values = [*self.study.overrides, *method.overrides]
        for key, name in (
            ("model.teacher_checkpoint", method.teacher),
            ("model.student_checkpoint", method.student_init),
        ):
            if name:
                other = self.study.method(name)
                values.append(f"{key}={self.weights(other, self.seed_of_weights(other))}")
        return values

    def config(self, method: Method) -> DictConfig:
        """Returns the config of a method's runs."""
        arguments = parse_arguments([*self.source(method), *self.overrides(method)])
        with LOADING:
            if arguments.data:
                return load_config_with_data(arguments)[0]
            return load_config(arguments.config_file, arguments.opts)

    def config_hash(self, method: Method) -> str:
        """Returns a hash of what determines a method's runs, but for the seed and the code."""
        if method.name not in self.hashes:
            self.hashes[method.name] = self._config_hash(method)
        return self.hashes[method.name]

    def _config_hash(self, method: Method) -> str:
        config = self.config(method)
        folder = config.train.output_dir
        for key in NO_PART_OF_HASH:
            OmegaConf.update(config, key, None)
        text = OmegaConf.to_yaml(config, sort_keys=True).replace(os.fspath(folder), "OUTPUT")
        for name in {method.teacher, method.student_init} - {""}:
            other = self.study.method(name)
            path = str(self.weights(other, self.seed_of_weights(other)))
            text = text.replace(path, self.config_hash(other))
        text += f"data: {self.study.data}, evaluations: {self.study.evaluations}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
