"""The page of `lad check-data` as one HTML file with pictures, which needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from omegaconf import DictConfig

from lad.cli.check_pictures import picture, size_plot
from lad.data.check import Check, Finding, count_classes, count_split
from lad.data.folders import clip_box
from lad.data.layouts import Layout, Photo
from lad.engine.box_sizes import BoxSizes
from lad.engine.fit import REACHED_IOU

COUNTS = ("images", "images without objects", "objects", "boxes clipped", "boxes left out")
EXAMPLES = 3  # of a class
MAX_CLASSES = 100  # with examples
MAX_PICTURES = 24  # of a kind
STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --page: #fff; --soft: #f2f4f7; --line: #cfd6de;
  --accent: #0b62c4; --bad: #b3261e; --good: #1a7f37; --missed: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ed; --page: #14171b; --soft: #1f242a;
  --line: #3b434c; --accent: #79b8ff; --bad: #ff8a80; --good: #6fd08c; --missed: #ffab70; } }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { margin-top: 2.5rem; font-size: 1.2rem; }
a { color: var(--accent); } nav a { display: inline-block; padding: .3rem .8rem .3rem 0; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; min-width: 6rem; }
meter { width: min(8rem, 18vw); } .bad { color: var(--bad); } .good { color: var(--good); }
.photos { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
figure { margin: 0; } figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.photo { width: 100%; aspect-ratio: 1; background: var(--soft); border-radius: 4px; }
.box, .halo { fill: none; vector-effect: non-scaling-stroke; stroke-width: 2; }
.halo { stroke: #000; stroke-width: 4; stroke-opacity: .6; }
.plot { width: 100%; max-width: 34rem; } .plot text { fill: var(--text); font-size: 12px; }
.grid { stroke: var(--line); } .reached { fill: var(--accent); fill-opacity: .45; }
.missed { fill: var(--missed); } .anchor { fill: none; stroke: var(--text); stroke-width: 2; }
li { overflow-wrap: anywhere; } summary { cursor: pointer; padding: .4rem 0; }
"""


def write_page(check: Check, config: DictConfig, folder: str, file: Path) -> None:
    """Writes the page about a folder, and the folders that the file is in.

    Args:
        check: of the folder.
        config: with image size and anchors; not used if the folder cannot be read.
        folder: its path.
        file: is replaced.
    """
    layout = check.layout
    sections: dict[str, str] = {"Refused by training": problem_list(check.problems)}
    if layout is not None:
        sections["Images and objects"] = split_table(layout)
        if check.warnings:
            sections["Warnings"] = text_list(check.warnings)
        sections["Classes"] = class_table(layout) + class_examples(layout)
        sections["Sizes of boxes and anchors"] = box_sizes(
            BoxSizes.of(config, layout.splits["train"])
        )
        sections |= {title: finding_list(x) for title, x in check.findings.items() if x}
        empty = [x for photos in layout.splits.values() for x in photos if not x.objects]
        if empty:
            findings = [Finding(str(photo.path), (photo,)) for photo in empty]
            sections["Images without objects"] = finding_list(findings)
    links = "".join(f'<a href="#s{i}">{escape(x)}</a>' for i, x in enumerate(sections))
    body = "".join(
        f'<section id="s{i}"><h2>{escape(title)}</h2>{content}</section>'
        for i, (title, content) in enumerate(sections.items())
    )
    kind = f"{layout.name}, {len(layout.class_names)} classes" if layout else "cannot be read"
    title = escape(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Names that are no Unicode are shown with question marks.
    text = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><header><h1>{title}</h1>"
        f'<p>{kind}</p></header><nav aria-label="Sections">{links}</nav>'
        f"<main>{body}</main></body></html>\n"
    )
    file.write_text(text, "utf-8", errors="replace")


def problem_list(problems: Sequence[str]) -> str:
    """Returns what training refuses."""
    if not problems:
        return '<p class="good">Nothing: this folder can be trained on.</p>'
    return f'<p class="bad">{len(problems)} to mend:</p>{text_list(problems)}'


def text_list(lines: Iterable[str]) -> str:
    """Returns a list of lines."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def table(rows: Iterable[Sequence[str]], headers: Sequence[str]) -> str:
    """Returns a table of HTML cells, the first of each row its header."""
    head = "".join(f'<th scope="col">{x}</th>' for x in headers)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{x}</td>" for x in rest)}</tr>'
        for first, *rest in rows
    )
    # Wide tables are scrolled, from the keyboard too.
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def split_table(layout: Layout) -> str:
    """Returns the counts of each split."""
    columns = [count_split(photos) for photos in layout.splits.values()]
    rows = [
        [title, *map(str, row)]
        for title, row in zip(COUNTS, zip(*columns, strict=True), strict=True)
    ]
    return table(rows, ["", *layout.splits])


def class_table(layout: Layout) -> str:
    """Returns the number of objects of each class, with a bar for the training split."""
    counts = count_classes(layout)
    most = max(counts["train"].values(), default=1)
    rows = []
    for index, name in enumerate(layout.class_names):
        number = counts["train"][index]
        bar = f'<meter min="0" max="{most}" value="{number}">{number} of {most}</meter>'
        rows.append([escape(name), *(str(c[index]) for c in counts.values()), bar])
    return table(rows, ["class", *counts, "in train"])


def class_examples(layout: Layout) -> str:
    """Returns pictures of some objects of each class, taken evenly from the training split."""
    objects: dict[int, list[tuple[Photo, Mapping]]]
    objects = {index: [] for index in range(len(layout.class_names))}
    for photo in layout.splits["train"]:
        for entry in photo.objects:
            if clip_box(entry["bbox"], photo):
                objects[entry["category_id"]].append((photo, entry))
    figures = []
    for index, found in list(objects.items())[:MAX_CLASSES]:
        step = max(1, len(found) // EXAMPLES)
        for photo, example in found[::step][:EXAMPLES]:
            drawn = picture(photo, [example], around=example["bbox"])
            name = f"{layout.class_names[index]} in {photo.path.name}"
            figures.append(f"<figure>{drawn}<figcaption>{escape(name)}</figcaption></figure>")
    return f'<h3>Examples</h3><div class="photos">{"".join(figures)}</div>'


def box_sizes(sizes: BoxSizes) -> str:
    """Returns the plot of the training boxes, and which share the anchors reach."""
    if not len(sizes.boxes):
        return "<p>There are no boxes.</p>"
    text = "Training boxes in the images that the network sees."
    if sizes.share is not None:
        sides = ", ".join(f"{side:g}" for side in sizes.anchors)
        text += (
            f" Squares are the anchors, of {sides} px: {sizes.share:.1%} of the boxes have an IoU "
            f"of {REACHED_IOU} or more with one; the others are orange."
        )
    return f"<p>{text}</p>{size_plot(sizes)}"


def finding_list(findings: Sequence[Finding]) -> str:
    """Returns pictures of the first findings and all of their lines."""
    figures = []
    for finding in findings[:MAX_PICTURES]:
        text = f"<figcaption>{escape(finding.text)}</figcaption>"
        if not finding.entries:
            drawn = "".join(picture(photo, photo.objects) for photo in finding.photos)
        else:
            (photo,), (entry,) = finding.photos, finding.entries
            around = None if clip_box(entry["bbox"], photo) else entry["bbox"]
            drawn = picture(photo, [entry], around=around)
        figures.append(f"<figure>{drawn}{text}</figure>")
    lines = text_list(finding.text for finding in findings)
    return (
        f'<div class="photos">{"".join(figures)}</div>'
        f"<details><summary>All {len(findings)}</summary>{lines}</details>"
    )
