"""The quick cases of tools/probe_faults.py."""

import pytest

from faults.case import Case
from faults.cases import CASES


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.quick], ids=lambda case: f"{case.group}: {case.name}"
)
def test_a_fault_ends_well(case: Case, tmp_path) -> None:
    outcome, details = case.outcome(tmp_path)
    assert outcome.good, f"{outcome.value}: {details}"
