"""Trains a teacher and its students on digit scenes, and compares them: `make demo`."""

from launch import run_module

if __name__ == "__main__":
    run_module("studies.demo")
