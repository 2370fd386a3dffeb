"""All cases, in the order of their groups."""

from faults import code, config, data
from faults.case import Case

GROUPS = ("data", "config", "checkpoint", "process", "code")
CASES: list[Case] = [*data.CASES, *config.CASES, *code.CASES]
