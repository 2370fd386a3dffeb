"""Runs the studies of studies/, and makes tables and plots of what they have stored.

python tools/study.py STUDY [METHOD...] [--seeds N...] [--workers N] [--table] | --check | --update
"""

from launch import run_module

if __name__ == "__main__":
    run_module("studies")
