"""The figures for TensorBoard."""

import numpy as np
import pytest

from helpers import make_batch, make_paa, make_retinanet
from lad.inspection.compute import inspect_batch
from lad.inspection.data import objects_of, to_data
from lad.inspection.figures import draw_figures
from lad.inspection.page import to_pixels
from lad.modeling.distillation import LAD

BOXES = [[5.0, 5, 40, 50], [50.0, 10, 90, 60]]


def draw(model, boxes) -> dict[str, np.ndarray]:
    (record,) = batch = make_batch([boxes])
    inspection = inspect_batch(model, batch)
    objects = [{"name": "$\\no_math", "box": x["box"]} for x in objects_of(inspection, 0)]
    pixels, strides = to_pixels(record["image"], "RGB"), inspection.anchors.strides
    return draw_figures(pixels, objects, to_data(inspection), strides)


@pytest.mark.parametrize(
    ("make", "boxes", "names"),
    [
        (lambda: LAD(student=make_paa(0), teacher=make_paa(1)), BOXES, "assignment costs teachers"),
        (lambda: LAD(student=make_paa(0), teacher=make_paa(1)), [], "assignment teachers"),
        (make_paa, BOXES, "assignment costs"),
        (make_retinanet, BOXES, "assignment"),
    ],
)
def test_what_there_is_to_draw(make, boxes, names):
    figures = draw(make(), boxes)
    assert list(figures) == names.split()
    for picture in figures.values():
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


def test_another_assignment_is_another_picture():
    first, second = (draw(make_paa(seed), BOXES) for seed in (0, 1))
    assert not np.array_equal(first["costs"], second["costs"])
    again = draw(make_paa(0), BOXES)
    assert all(np.array_equal(first[name], again[name]) for name in first)
