"""What a program waits for: the import, and the first page of a fresh process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from perf.machine import ROOT
from perf.options import Options
from perf.result import Figure, at_most

__all__ = ["figures"]

TIMEOUT_S = 120.0

IMPORT = """
import time
begun = time.perf_counter()
import mos_pipeline
print(time.perf_counter() - begun)
"""

FIRST_ADD = """
import sys, time
from mos_pipeline import MemoryPipeline
pipeline = MemoryPipeline.open(sys.argv[1], embedding__backend=sys.argv[2])
pipeline.add("user", "Where did I leave my keys?", "You left them in the kitchen.")
print(time.monotonic())
pipeline.close()
"""


def figures(options: Options) -> list[Figure]:
    """Measure both in fresh processes, turn by turn; files are in the page cache, as they are on a machine in use."""
    imports, adds = [], []
    _output(IMPORT)  # compiles what has not been compiled yet
    for _ in range(options.times(7, 3)):
        imports.append(_output(IMPORT))
        with options.store() as folder:
            adds.append(_first_add(folder, options.backend))
    return [
        Figure.of("import mos_pipeline", "s", imports, at_most(0.35)),
        Figure.of("process start to the first add, a new store", "s", adds, at_most(0.6)),
    ]


def _first_add(folder: Path, backend: str) -> float:
    begun = time.monotonic()  # one clock for all processes
    return _output(FIRST_ADD, str(folder), backend) - begun


def _output(program: str, *arguments: str) -> float:
    done = subprocess.run(  # noqa: S603 (this interpreter, the programs above)
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=TIMEOUT_S,
    )
    return float(done.stdout)
