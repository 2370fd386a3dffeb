"""Fixtures of several folders."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

COLAD = str(Path(__file__).parent / "engine/detector_config.py")


@pytest.fixture(autouse=True)
def fresh_logs() -> Iterator[None]:
    """Removes the handlers of a run's log after each test: they write to streams of that test."""
    yield
    from detectron2.utils.logger import setup_logger

    for name in ("detectron2", "fvcore", "lad"):
        logging.getLogger(name).handlers.clear()
    setup_logger.cache_clear()


@pytest.fixture
def dataset_name() -> str:
    """A dataset name whose registration is undone after the test."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    name = "lad_test_dataset"
    yield name
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog.list():
            catalog.remove(name)


@pytest.fixture(scope="session")
def colad(tmp_path_factory) -> Path:
    """The output folder of a short CoLAD training on tiny digit scenes."""
    from lad.engine.run import main

    folder = tmp_path_factory.mktemp("run") / "colad"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(tmp_path_factory.mktemp("datasets")))
        main(["--config-file", COLAD, f"train.output_dir={folder}"])
    return folder


@pytest.fixture(scope="session")
def scenes(colad) -> Path:
    """The folder of that training's validation images."""
    from detectron2.data import MetadataCatalog

    return Path(MetadataCatalog.get("tiny_digits_val").image_root)


@pytest.fixture(scope="session")
def images(scenes) -> list[Path]:
    """The validation images."""
    return sorted(scenes.glob("*.png"))


@pytest.fixture(scope="session")
def student(colad, tmp_path_factory) -> Path:
    """The student's own checkpoint."""
    from lad.checkpoint import export_network

    path = tmp_path_factory.mktemp("exported") / "student.pth"
    export_network(str(colad / "model_final.pth"), "student", str(path))
    return path


@pytest.fixture(scope="session")
def predictor(colad):
    """Predicts with the student."""
    from helpers import HARDLY_TRAINED
    from lad import Predictor

    return Predictor(colad, threshold=HARDLY_TRAINED)
