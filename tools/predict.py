"""Detects objects in images and videos with a trained detector: `lad predict`."""

import sys

from lad.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
