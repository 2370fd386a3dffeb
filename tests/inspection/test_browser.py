"""The page in a real browser: what is shown follows mouse and keyboard."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import make_batch, make_paa
from lad.assignment.indicators import StdMean
from lad.assignment.switch import RoleSwitch
from lad.inspection.compute import inspect_batch, training_rule
from lad.inspection.data import objects_of, to_data
from lad.inspection.page import image_source, render, to_pixels
from lad.modeling.distillation import CoLAD

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EVIL = "<img src=x onerror=alert(1)>"
BOXES = [[[5.0, 5, 40, 50], [70.0, 10, 90, 30], [20.0, 5, 60, 40]], [], [[10.0, 10, 60, 60]]]


def chromium() -> str:
    """Returns the path of a browser that starts, else skips the test."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: install one of {', '.join(NAMES)}")
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=120)
    if answer.returncode:
        pytest.skip(f"{path} does not start: {answer.stderr.strip()[-200:]}")
    return path


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


def make_data(models: dict, boxes: list, names: tuple[str, ...]) -> dict:
    """What the command embeds, for models in place of checkpoints."""
    batch = make_batch(boxes)
    inspections = {name: inspect_batch(model, batch) for name, model in models.items()}
    first, rule = next(iter(inspections.values())), training_rule(next(iter(models.values())))
    images = [
        {
            "name": f"image {index} {EVIL}",
            "note": f"Note {EVIL}" if index == 1 else "",
            "height": record["image"].shape[1],
            "width": record["image"].shape[2],
            "source": image_source(to_pixels(record["image"], "RGB")),
            "objects": [
                {"name": names[x["class"]], "box": x["box"]} for x in objects_of(first, index)
            ],
        }
        for index, record in enumerate(batch)
    ]
    return {
        "rule": rule.text,
        "scope": rule.scope,
        "indicator": rule.indicator,
        "networks": list(first.views),
        "strides": list(first.anchors.strides),
        "images": images,
        "checkpoints": [{"name": k, **to_data(x)} for k, x in inspections.items()],
    }


@pytest.fixture(scope="module")
def data() -> dict:
    """Two checkpoints of CoLAD, three images of which one has no objects."""
    switch = RoleSwitch(indicator=StdMean(), scope="object")
    models = {
        f"iteration {seed}": CoLAD(
            student=make_paa(seed), teacher=make_paa(seed + 1), switch=switch
        )
        for seed in (1, 2)
    }
    return make_data(models, BOXES, ("cat", EVIL, "a" * 80))


def open_page(browser, data: dict, file: Path, **options) -> Iterator:
    """Yields the page; afterwards it must have reported nothing and loaded nothing else."""
    file.write_text(render(f"Title {EVIL}", data), encoding="utf-8")
    context = browser.new_context(**options)
    page = context.new_page()
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert not problems
    assert {x for x in requests if not x.startswith("data:")} == {file.as_uri()}


@pytest.fixture
def page(browser, data, tmp_path):
    yield from open_page(browser, data, tmp_path / "page.html")


def counts(page) -> dict[str, int]:
    """The marks in the picture."""
    kinds = ("both", "student", "teacher", "detector")
    found = {kind: page.locator(f"#picture .mark.{kind}").count() for kind in kinds}
    return {kind: count for kind, count in found.items() if count}


def expected(found: dict, level: int | None = None) -> dict[str, int]:
    """The marks of an object by the data."""
    result: dict[str, int] = {}
    for index, at in enumerate(found["assigned"]["level"]):
        if level in (None, at):
            names = [name for name, mask in found["assigned"]["by"].items() if mask[index]]
            kind = names[0] if len(names) == 1 else "both"
            result[kind] = result.get(kind, 0) + 1
    return result


def test_the_page_shows_an_object_of_the_last_checkpoint(page, data):
    found = data["checkpoints"][1]["images"][0]["objects"]
    assert page.title() == f"Title {EVIL}"
    assert counts(page) == expected(found[0])
    assert page.locator("#picture .object").count() == 3
    assert page.locator("#rule").inner_text() == data["rule"]
    assert page.locator("#checkpoint-name").inner_text() == "iteration 2"
    for name in ("student", "teacher"):
        histogram = page.locator(f'.histogram[data-network="{name}"]')
        costs = found[0]["costs"][name]
        text = histogram.locator("figcaption").inner_text()
        assert f"{len(costs['values'])} costs, {sum(costs['positive'])} positive" in text
        assert f"cut at {costs['cut']:.3g}" in text
        assert f"Gaussians: {costs['fit']['means'][0]:.3g}" in text
        assert histogram.locator(".curve").count() == 2 and histogram.locator(".cut").count() == 1
    tables = page.locator("#teachers table")
    assert tables.count() == 2
    rows = tables.first.locator("tbody tr")
    assert rows.count() == 3 + len(data["strides"])
    used = tables.first.locator("tr.used")
    assert used.count() == 1 and "object (used)" in used.inner_text()
    decision = found[0]["decisions"]["object"]["std/mean"]
    assert decision["teaches"] in used.inner_text()
    assert f"{decision['student']:.3g}" in used.inner_text()


def test_clicks_and_keys_choose_the_object(page, data):
    found = data["checkpoints"][1]["images"][0]["objects"]
    summaries = [page.locator("#summary").inner_text()]
    page.locator("#objects label").nth(1).click()
    summaries.append(page.locator("#summary").inner_text())
    assert counts(page) == expected(found[1])
    page.keyboard.press("ArrowRight")
    summaries.append(page.locator("#summary").inner_text())
    assert counts(page) == expected(found[2])
    page.keyboard.press("ArrowLeft")
    assert page.locator("#summary").inner_text() == summaries[1]
    assert len(set(summaries)) == 3
    image, (x0, y0, _, y1) = data["images"][0], data["images"][0]["objects"][0]["box"]
    picture = page.locator("#picture image").bounding_box()
    scale = picture["width"] / image["width"]
    # Its left part belongs to no other object.
    page.mouse.click(picture["x"] + scale * (x0 + 4), picture["y"] + scale * (y0 + y1) / 2)
    assert page.locator("#summary").inner_text() == summaries[0]
    assert page.locator("#objects input:checked + span").inner_text() == "1: cat"


def test_all_controls_are_reached_by_the_tab_key(page):
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert reached[:6] == ["image", "checkpoint", "object", "level", "outlines", "zoom"]


def test_levels_are_filtered(page, data):
    found = data["checkpoints"][1]["images"][0]["objects"][0]
    page.get_by_text("all", exact=True).click()
    for level, stride in enumerate(data["strides"]):
        page.keyboard.press("ArrowRight")
        assert counts(page) == expected(found, level)
        page.locator("details").evaluate("x => { x.open = true; }")
        assert page.locator("#anchors tbody tr").count() == sum(expected(found, level).values())
        assert f"of stride {stride}:" in page.locator("#summary").inner_text()


def test_the_slider_goes_over_checkpoints(page, data):
    page.locator("#checkpoint").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#checkpoint-name").inner_text() == "iteration 1"
    assert counts(page) == expected(data["checkpoints"][0]["images"][0]["objects"][0])
    page.keyboard.press("End")
    assert page.locator("#checkpoint-name").inner_text() == "iteration 2"


def test_images_with_and_without_objects(page, data):
    page.select_option("#image", "1")
    assert page.locator("#note").inner_text() == f"Note {EVIL}"
    assert "no objects" in page.locator("#summary").inner_text()
    assert not counts(page) and page.locator("#costs-part").is_hidden()
    page.select_option("#image", "2")
    assert counts(page) == expected(data["checkpoints"][1]["images"][2]["objects"][0])
    assert page.locator("#note").is_hidden()


def test_outlines_and_zoom(page):
    page.locator("#objects label").nth(1).click()
    marks, view = sum(counts(page).values()), page.locator("#picture").get_attribute("viewBox")
    page.get_by_label("Outline the anchors").check()
    assert page.locator("#picture .outline").count() == marks
    assert view == "0 0 96 64"
    page.get_by_label("Zoom to the object").check()
    # The object of 20x20 px at (80, 20), 2.5 times as high as it is.
    assert page.locator("#picture").get_attribute("viewBox") == "21 0 75 50"


def contrast(page, selector: str) -> float:
    """Contrast of an element's text with the page, by WCAG's formula."""

    def luminance(color: str) -> float:
        channels = [int(x) / 255 for x in re.findall(r"\d+", color)[:3]]
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in channels]
        return sum(x * y for x, y in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    get = "([s, p]) => getComputedStyle(document.querySelector(s))[p]"
    colors = (
        page.evaluate(get, [selector, "color"]),
        page.evaluate(get, ["body", "backgroundColor"]),
    )
    low, high = sorted(map(luminance, colors))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width_in_light_and_dark(browser, data, tmp_path, scheme):
    options = {"viewport": {"width": 360, "height": 640}, "color_scheme": scheme}
    for page in open_page(browser, data, tmp_path / "page.html", **options):
        page.locator("details").evaluate("x => { x.open = true; }")
        page.locator("#objects input").nth(2).check(force=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 300) == (scheme == "dark")
        for selector in ("h1", "#summary", "legend", "caption"):
            assert contrast(page, selector) > 4.5


def test_controls_have_names(page):
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, select, svg[role=img]")].filter(
            (x) => !(x.labels && x.labels.length) && !x.ariaLabel && !x.ariaLabelledByElements
        ).map((x) => x.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []


def test_one_network_shows_its_own_assignment(browser, tmp_path):
    data = make_data({"final": make_paa()}, BOXES[2:], ("cat", "dog", "cow"))
    for page in open_page(browser, data, tmp_path / "page.html"):
        (found,) = data["checkpoints"][0]["images"][0]["objects"]
        assert counts(page) == expected(found) == {"detector": sum(expected(found).values())}
        assert page.locator("#teachers-part").is_hidden()
        assert page.locator("#choose-image").is_hidden()
        assert page.locator("#choose-checkpoint").is_hidden()
        assert page.locator(".histogram").count() == 1
