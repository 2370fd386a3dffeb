"""Exports a trained detector as ONNX or PyTorch program: `lad export`."""

import sys

from lad.cli.export_model import main

if __name__ == "__main__":
    sys.exit(main())
