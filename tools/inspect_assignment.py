"""Writes a page that shows which anchors each network assigns: `lad inspect`."""

import sys

from lad.cli.inspect_assignment import main

if __name__ == "__main__":
    sys.exit(main())
