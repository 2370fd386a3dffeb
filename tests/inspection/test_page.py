"""The page's text: self-contained, and names stay names."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from lad.inspection.page import image_source, render, to_pixels

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!-- {{script}} & \" ' \u2028"


def embedded(page: str) -> dict:
    """The data of a page."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_names_do_not_become_html():
    data = {"images": [{"name": EVIL}], EVIL: 1}
    page = render(EVIL, data)
    assert embedded(page) == data
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert "<img" not in page and "alert(1)</script>" not in page
    assert page.count("&lt;img src=x onerror=alert(2)&gt;") == 2  # title and heading


def test_the_page_refers_to_nothing_else():
    page = render("title", {})
    addresses = re.findall(r"https?://[^\s\"']+", page)
    assert set(addresses) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\{\{\w+\}\}|@import|\bsrc=|url\(", page)
    assert "default-src 'none'" in page


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        render("title", {"value": float("nan")})


@pytest.mark.parametrize(("order", "red"), [("RGB", 0), ("BGR", 2)])
def test_images_are_embedded_in_rgb(order, red):
    image = torch.zeros(3, 16, 24)
    image[red] = 300.0  # above what a pixel can be
    pixels = to_pixels(image, order)
    assert pixels.shape == (16, 24, 3) and (pixels == [255, 0, 0]).all()
    kind, text = image_source(pixels).split(",")
    assert kind == "data:image/jpeg;base64"
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), dtype=int)
    assert np.abs(decoded - [255, 0, 0]).max() < 8
