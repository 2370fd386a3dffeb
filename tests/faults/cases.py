"""All cases, in the order of their groups."""

from faults import code, config
from faults.case import Case

GROUPS = ("data", "config", "checkpoint", "process", "code")
CASES: list[Case] = [*config.CASES, *code.CASES]
