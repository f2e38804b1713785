"""What the embedder's model takes for a question and for a full batch, in the ways of computing that were open.

Each way is a process of its own with the model loaded, asked turn by turn: linear layers with weights packed ahead or
not, and threads that wait for each other by spinning shortly (as the embedder does), long, or never. Once on the
machine as it is, once beside as many busy processes as there are cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mos_pipeline import config
from perf.children import Child
from perf.options import Options
from perf.result import BenchResult, Figure

__all__ = ["run"]

MS = 1000.0
PAUSE_S = 0.02  # the threads of the way before have stopped spinning by then
# A question, and a batch of some 1,000 word pieces: (texts, words of one piece each).
SHAPES = {"question": (1, 10), "batch": (14, 70)}
OURS = "packed, spinning shortly"
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    OURS: ("packed", {}),
    "packed, spinning long": ("packed", {"GOMP_SPINCOUNT": "300000"}),  # what libgomp does by itself
    "packed, never spinning": ("packed", {"OMP_WAIT_POLICY": "PASSIVE"}),
    "not packed, spinning shortly": ("plain", {}),
}
QUICK_WAYS = (OURS, "not packed, spinning shortly")


def run(options: Options) -> BenchResult:
    """Measure every way in turn."""
    with ExitStack() as stack:
        children = {
            way: stack.enter_context(Child("embedding", kind, environment=environment))
            for way, (kind, environment) in WAYS.items()
            if not options.quick or way in QUICK_WAYS
        }
        for child in children.values():
            child.ask("encode", texts=1, words=1)  # answers when its model is loaded
        figures = _figures(children, "", options.times(30, 1))
        with _busy():
            figures += _figures(children, " beside busy processes", options.times(30, 1))
    return BenchResult("embed", {"embedding": config.Config().as_dict()["embedding"]}, figures)


def _figures(children: dict[str, Child], circumstances: str, rounds: int) -> list[Figure]:
    figures = []
    for shape, (texts, words) in SHAPES.items():
        spent: dict[str, list[float]] = {way: [] for way in children}
        for _ in range(rounds):
            for way, child in children.items():
                time.sleep(PAUSE_S)
                spent[way].append(MS * child.ask("encode", texts=texts, words=words))
        for way, samples in spent.items():
            figures.append(Figure.of(f"{shape}{circumstances}, {way}", "ms", samples))
            if way != OURS:
                figures.append(Figure.ratio(f"{shape}{circumstances}, ours / {way}", spent[OURS], samples))
    return figures


@contextmanager
def _busy() -> Iterator[None]:
    """Keep every core busy with something else."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
