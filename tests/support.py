"""What several test modules need: pipelines with the fake model, pages, and a look at processes and blocks."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline, Page

__all__ = [
    "all_pages",
    "children",
    "environment_kept",
    "open_fake",
    "own_blocks",
    "page_text",
    "signal_stack_kept",
    "signals_heeded",
    "unpack",
]

# One LLM worker: who is about what several do asks for them.
FAKE: dict[str, Any] = {"embedding__backend": "fake", "llm__processes": 1, "runtime__restart_backoff_s": 0.01}
WORD_LIST = """
beagle harbour violin tomato ladder winter passport engine garden museum bicycle lantern recipe allergy mountain
station pepper blanket teacher concert island window letter orchard puzzle salary tunnel uncle velvet whistle
"""
WORDS = WORD_LIST.split()


def open_fake(path: Path, **settings: Any) -> MemoryPipeline:
    """Open a pipeline with the fake model."""
    return MemoryPipeline.open(path, **{**FAKE, **settings})


def page_text(number: int) -> tuple[str, str]:
    """Return both sides of a page that can be told from all others."""
    rng = random.Random(number)
    said = f"number{number} " + " ".join(rng.choices(WORDS, k=rng.randint(4, 20))) + "."
    return said, " ".join(rng.choices(WORDS, k=rng.randint(2, 12))) + "."


def all_pages(memory: MemoryPipeline, user_id: str | None = None) -> list[Page]:
    """Return every page, in order."""
    found: list[Page] = []
    while batch := memory.pages(user_id, offset=len(found), limit=500):
        found += batch
    return found


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar file that lies in this repository."""
    safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not there before Python 3.11.4
    with tarfile.open(archive) as packed:
        packed.extractall(folder, **safely)


def children() -> dict[int, str]:
    """Return this process's children and their command lines; the resource tracker, which stays, left out."""
    found = {}
    for pid in {*_child_pids(), *_child_pids()}:  # twice: one that ends amid a listing may hide another
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it ended meanwhile
        if "resource_tracker" not in command:
            found[pid] = command
    return found


def _child_pids() -> Iterator[int]:
    """Yield the process ids of the children of all threads, as the kernel lists them: no look at every process."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            yield from map(int, (thread / "children").read_text().split())


def own_blocks() -> Iterator[str]:
    """Yield the names of this process's blocks of shared memory and semaphores."""
    for path in Path("/dev/shm").glob(f"*mos-{os.getpid()}-*"):
        yield path.name


@contextlib.contextmanager
def environment_kept() -> Iterator[None]:
    """Bring this process's environment back to what it was."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def signals_heeded() -> Iterator[None]:
    """Heed Ctrl-C, also in the background, and SIGHUP, also under nohup; children started inside do so, too."""
    before = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL))
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _SignalStack(ctypes.Structure):
    """A ``stack_t``."""

    _fields_ = (("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t))


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Bring back the stack on which this thread takes signals.

    OpenVINO puts one of its own in its place, and leaves it there when it is unloaded and the memory is gone: the
    process would die of the next signal that has a handler.
    """
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
