"""Converts a checkpoint of another project to our names: `lad convert`."""

import sys

from lad.cli.convert_checkpoint import main

if __name__ == "__main__":
    sys.exit(main())
