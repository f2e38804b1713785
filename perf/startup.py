"""What a program waits for: the import, and the first page of a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from perf.machine import ROOT
from perf.options import Options
from perf.result import Figure, at_most

__all__ = ["figures"]

TIMEOUT_S = 120.0

# The package loads its names when they are asked for: only with the class has the library been imported.
IMPORTS = """
import time
begun = time.perf_counter()
import mos_pipeline
bare = time.perf_counter()
mos_pipeline.MemoryPipeline
print(bare - begun, time.perf_counter() - begun)
"""

FIRST_ADD = """
import json, sys, time
from mos_pipeline import MemoryPipeline
pipeline = MemoryPipeline.open(sys.argv[1], **json.loads(sys.argv[2]))
pipeline.add("user", "Where did I leave my keys?", "You left them in the kitchen.")
print(time.monotonic())
pipeline.close()
"""


def figures(options: Options) -> list[Figure]:
    """Measure both in fresh processes, turn by turn; files are in the page cache, as they are on a machine in use."""
    packages, classes, adds = list[float](), list[float](), list[float]()
    _output(IMPORTS)  # compiles what has not been compiled yet
    for _ in range(options.times(7, 2)):
        package, loaded = _output(IMPORTS)
        packages.append(package)
        classes.append(loaded)
        with options.store() as folder:
            settings = options.with_own({"embedding__backend": options.backend})
            adds.append(_first_add(folder, json.dumps(settings)))
    return [
        Figure.of("import mos_pipeline, names not loaded", "s", packages),
        Figure.of("import mos_pipeline and its MemoryPipeline", "s", classes, at_most(0.35)),
        Figure.of("process start to the first add, a new store", "s", adds, at_most(0.6)),
    ]


def _first_add(folder: Path, settings: str) -> float:
    begun = time.monotonic()  # one clock for all processes
    return _output(FIRST_ADD, str(folder), settings)[0] - begun


def _output(program: str, *arguments: str) -> list[float]:
    done = subprocess.run(  # noqa: S603 (this interpreter, the programs above)
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=TIMEOUT_S,
    )
    return [float(number) for number in done.stdout.split()]
