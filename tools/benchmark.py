"""Measures the speed of this project and of its references: runs benchmarks/.

python tools/benchmark.py assignment|step|inference|evaluation|export|loader|scaling [--json FILE]
"""

from launch import run_module

if __name__ == "__main__":
    run_module("benchmarks")
