"""Command lines: `lad COMMAND`, and the tools of the same names in tools/."""
