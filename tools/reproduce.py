"""Runs a table of the LAD paper in miniature, or says how to run it on COCO.

python tools/reproduce.py TABLE [--data digits|coco] [--seeds N...] [--workers N] [--show]
"""

from launch import run_module

if __name__ == "__main__":
    run_module("studies.reproduce")
