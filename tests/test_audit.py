"""tools/audit.py: known holes and licences."""

import importlib.metadata
import json
from email.message import Message

import pytest

import audit
from audit import AuditError, describe, findings, license_of, needed

HOLE = {"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": ["2.10", "2.11"]}
ANSWER = {
    "dependencies": [
        {"name": "a", "version": "1", "vulns": []},
        {"name": "torch", "version": "2.5", "vulns": [HOLE]},
        {"name": "lad", "skip_reason": "not on PyPI"},
    ]
}


class Package:
    """A distribution with metadata only."""

    def __init__(self, **fields):
        self.metadata = Message()
        for name, values in fields.items():
            for value in [values] if isinstance(values, str) else values:
                self.metadata[name.replace("_", "-")] = value


def test_holes_are_a_line_each():
    expected = ["torch 2.5: PYSEC-1 CVE-2, fixed in 2.10, 2.11"]
    assert describe(findings(json.dumps(ANSWER), "")) == expected
    assert describe([]) == []


@pytest.mark.parametrize("output", ["", "no JSON", "[]", "{}"])
def test_no_answer_is_no_all_clear(output, monkeypatch, capsys):
    with pytest.raises(AuditError, match="no answer: timed out"):
        findings(output, "x\ntimed out\n")
    monkeypatch.setattr(audit, "ask", lambda path: findings(output, "x\ntimed out\n"))
    assert audit.main([]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "nothing is known" in error


def test_status_and_summary(monkeypatch, capsys):
    good, hole, local = ANSWER["dependencies"]
    unknown = {"name": "numpy", "skip_reason": "Dependency not found on PyPI"}
    for packages, status, last in (
        ([good, hole, local], 1, "2 packages asked about, 1 known holes"),
        ([good, local], 0, "1 packages asked about, 0 known holes"),
        ([unknown, local], 2, "0 packages asked about, 0 known holes"),
        ([hole, unknown], 1, "1 packages asked about, 1 known holes"),
    ):
        monkeypatch.setattr(audit, "ask", lambda path, packages=packages: packages)
        assert audit.main([]) == status
        printed = capsys.readouterr()
        assert printed.out.splitlines()[-1] == last
        assert ("nothing is known about 1 packages (numpy)" in printed.err) == (unknown in packages)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"License_Expression": "MIT", "License": "other"}, "MIT"),
        ({"License": "BSD-3-Clause"}, "BSD-3-Clause"),
        ({"License": "UNKNOWN", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT L"),
        ({"Classifier": ["Topic :: X", "License :: OSI Approved"]}, "unknown"),
        ({}, "unknown"),
        ({"License": "Copyright\nall the text"}, "Copyright"),
    ],
)
def test_license_of_metadata(fields, expected):
    assert license_of(Package(**fields)).startswith(expected)


def test_table_of_licenses(tmp_path):
    assert audit.main(["--licenses", str(tmp_path / "x.md")]) == 0
    rows = (tmp_path / "x.md").read_text().splitlines()
    assert any(f"| torch | {importlib.metadata.version('torch')} | " in row for row in rows)
    assert any(row.startswith("| detectron2 | ") and "Apache-2.0" in row for row in rows)
    names = needed(["scipy"])
    assert "numpy" in names and "pytest" not in names
    assert needed(["there-is-no-such-package"]) == {}
