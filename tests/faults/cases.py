"""All cases, in the order of their groups."""

from faults import checkpoint, code, config, data, process, ranks
from faults.case import Case

GROUPS = ("data", "config", "checkpoint", "process", "code")
CASES: list[Case] = [
    *data.CASES,
    *config.CASES,
    *checkpoint.CASES,
    *process.CASES,
    *ranks.CASES,
    *code.CASES,
]
