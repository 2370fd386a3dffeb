"""Writes one network of a two-network checkpoint as a plain checkpoint: `lad export-network`."""

import sys

from lad.cli.export_network import main

if __name__ == "__main__":
    sys.exit(main())
