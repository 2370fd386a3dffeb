"""Fixtures of several folders."""

import pytest


@pytest.fixture
def dataset_name() -> str:
    """A dataset name whose registration is undone after the test."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    name = "lad_test_dataset"
    yield name
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog.list():
            catalog.remove(name)
