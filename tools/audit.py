"""Looks for known holes in the installed packages, or lists their licences.

    python tools/audit.py                              # make audit
    python tools/audit.py --licenses docs/licenses.md

The first asks pip-audit, in an environment of its own that is removed afterwards, about all
packages beside this interpreter; it needs the network. The exit status is 0 without known holes,
1 with one, and 2 if the advisories could not be asked for: then nothing is known. The second
writes a table of what an installed lad needs, from the packages' own metadata.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

TITLE = """# Licenses

Of what `lad[export]` needs, as the packages' own metadata in `.venv` say; their files may say more.
"unknown" means that the metadata say nothing. This project's own license is Apache-2.0.
Made by `.venv/bin/python tools/audit.py --licenses docs/licenses.md`.

| package | version | license |
|---|---|---|
"""


LOCAL = ("detectron2", "lad")  # the registry has them not, or not as they are here


class AuditError(Exception):
    """Why nothing is known, in one line."""


def ask(site_packages: str) -> list[dict]:
    """Returns pip-audit's findings by package.

    Raises:
        AuditError: if pip-audit cannot be installed, or gets no answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, "bin/python")
        _run([sys.executable, "-m", "venv", folder], "no environment can be made")
        install = [str(own), "-m", "pip", "install", "--quiet", "pip-audit"]
        _run(install, "pip-audit cannot be installed (no registry?)")
        command = [str(own), "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
        result = subprocess.run(
            [*command, "--path", site_packages], capture_output=True, text=True, check=False
        )
    return findings(result.stdout, result.stderr)


def _run(command: Sequence[str], problem: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise AuditError(f"{problem}: {_last(result.stderr)}")


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:200]


def findings(output: str, errors: str) -> list[dict]:
    """Returns the packages in pip-audit's JSON.

    Raises:
        AuditError: if it is none, because the advisory service gave no answer.
    """
    try:
        return json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        raise AuditError(f"the advisory service gave no answer: {_last(errors)}") from None


def describe(packages: Iterable[dict]) -> list[str]:
    """Returns a line per known hole."""
    return [
        f"{package['name']} {package['version']}: {hole['id']}"
        f" {' '.join(hole.get('aliases', []))}, fixed in {', '.join(hole['fix_versions']) or '-'}"
        for package in packages
        for hole in package.get("vulns", [])
    ]


def needed(names: Iterable[str]) -> dict[str, Distribution]:
    """Returns the installed distributions that some need, and those that these need, by name.

    Args:
        names: such as "lad[export]".
    """
    found: dict[str, Distribution] = {}
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        requirement = waiting.pop()
        match = re.match(r"([\w.-]+)\s*(?:\[([\w.,\s-]+)\])?", requirement)
        if match is None or requirement in seen:
            continue
        seen.add(requirement)
        try:
            package = distribution(match[1])
        except PackageNotFoundError:  # for another platform or Python
            continue
        found[package.metadata["Name"]] = package
        extras = {x.strip() for x in (match[2] or "").split(",")}
        for text in package.requires or []:
            line, _, marker = text.partition(";")
            extra = re.search(r"""extra\s*==\s*['"]([\w.-]+)""", marker)
            if extra is None or extra[1] in extras:
                waiting.append(line.strip())
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def license_of(package: Distribution) -> str:
    """Returns a license in a few words, "unknown" if the metadata have none."""
    about = package.metadata
    prefix = "License :: "
    classifiers = [x for x in about.get_all("Classifier") or [] if x.startswith(prefix)]
    named = [x.rpartition(" :: ")[2] for x in classifiers if x != "License :: OSI Approved"]
    text = (about.get("License") or "").strip()
    short = text if text and "\n" not in text and len(text) < 60 and text != "UNKNOWN" else ""
    return about.get("License-Expression") or short or ", ".join(named) or _first_line(text)


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:60] if lines else "unknown"


def write_licenses(path: Path) -> int:
    """Writes the table; returns its number of packages."""
    packages = needed(["lad[export]", "detectron2"])
    rows = [
        f"| {name} | {package.version} | {license_of(package)} |\n"
        for name, package in packages.items()
        if name != "lad"
    ]
    path.write_text(TITLE + "".join(rows), encoding="utf-8")
    return len(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--licenses", type=Path, metavar="FILE", help="write the table instead")
    args = parser.parse_args(argv)
    if args.licenses:
        print(f"{args.licenses}: {write_licenses(args.licenses)} packages")
        return 0
    try:
        packages = ask(sysconfig.get_paths()["purelib"])
    except AuditError as error:
        print(f"audit.py: error: nothing is known: {error}", file=sys.stderr)
        return 2
    return summarize(packages)


def summarize(packages: list[dict]) -> int:
    """Prints the holes and what nobody could tell; returns the exit status."""
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    # pip-audit finds no holes, without an error, if the registry has no advisories.
    unknown = [name for name in skipped if name not in LOCAL]
    holes = describe(packages)
    for hole in holes:
        print(hole)
    print(f"{len(packages) - len(skipped)} packages asked about, {len(holes)} known holes")
    if unknown:
        some = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        print(
            f"audit.py: error: nothing is known about {len(unknown)} packages ({some}): the "
            "advisory service did not tell",
            file=sys.stderr,
        )
    return 1 if holes else 2 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
