"""Runs every fault of tests/faults and counts how they ended.

python tools/probe_faults.py [GROUP...] [--quick] [--only TEXT]
"""

from launch import ROOT, run_module

if __name__ == "__main__":
    run_module("faults", ROOT / "tests")
