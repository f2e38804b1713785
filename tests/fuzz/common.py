"""Bytes to begin with, and what happens to them."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["CORPUS", "EXAMPLES", "bounded_memory", "broken", "edited", "edits", "first_difference", "fuzzed"]

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = int(os.environ.get("MOS_FUZZ_EXAMPLES", "50"))

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,  # the machine may be busy
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_EDIT = st.tuples(
    st.integers(0, 1 << 20),  # where, modulo the length
    st.integers(0, 64),  # bytes that go
    st.one_of(
        st.binary(max_size=24), st.sampled_from([b"\0" * 512, b"\xff" * 8, b"MOSF", b"{", b"]", b'"', b"\\u0000"])
    ),
)


edits = st.lists(_EDIT, max_size=4)


def broken(*names: str) -> st.SearchStrategy[tuple[bytes, bytes]]:
    """Return files of the corpus, each as it is and after a few edits."""
    whole = st.sampled_from([(CORPUS / name).read_bytes() for name in names])
    return st.tuples(whole, edits).map(lambda pair: (pair[0], edited(*pair)))


def edited(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Return ``data`` after a few edits: where, bytes that go, bytes that come."""
    for place, gone, new in changes:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + gone :]
    return data


def first_difference(before: bytes, after: bytes) -> int:
    """Return how many bytes both begin with alike."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((place for place, (old, new) in pairs if old != new), min(len(before), len(after)))


@contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """Check that the block needs no more than ``size`` bytes beyond what there was."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= size
    finally:
        tracemalloc.stop()
