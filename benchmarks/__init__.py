"""The modes of tools/benchmark.py, one module each."""
