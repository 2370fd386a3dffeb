"""Checks a folder of labeled images before it is trained on: `lad check-data`."""

import sys

from lad.cli.check_dataset import main

if __name__ == "__main__":
    sys.exit(main())
