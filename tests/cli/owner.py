"""A program that owns a store until its stdin ends: ``python -m tests.cli.owner STORE``; it says when it is ready."""

from __future__ import annotations

import sys
from pathlib import Path

from mos_pipeline import MemoryPipeline

__all__ = ["main"]


def main(store: Path) -> None:
    """Own the store."""
    with MemoryPipeline.open(store):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
