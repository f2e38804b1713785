"""``python -m mos_pipeline``: the command line."""

from __future__ import annotations

import sys

from mos_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main())
