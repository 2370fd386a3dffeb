"""Compares this project with outputs of the official implementation: runs tests/parity.

python tools/check_parity.py [DIR...] [--require FAMILY,...] [--mixture-random N [--seed S]]
"""

from launch import ROOT, run_module

if __name__ == "__main__":
    run_module("parity", ROOT / "tests")
