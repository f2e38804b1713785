"""How a block of vectors is laid out, and where a pool's owner tells readers of its blocks.

A block holds rows of float16, one vector each, and behind them a column of tags, int64, one a row: the number of the
page whose vector the row holds, or ``HIDDEN``. A tag is written after its row, and taken away before the row is written
again. Page numbers are never used again. So a row is that page's for as long as its tag stays the same: who finds a tag
equal before and after reading the row has read that page's vector. That is all that is counted on: there is no barrier
between processors, but for those of the messages and system calls in between.

The file that names the blocks is ``[dimension, [name, …], vector generation]`` in msgpack, and is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.messages import decode, encode

__all__ = ["HIDDEN", "ShownSlabs", "hide_slabs", "row_bytes", "show_slabs", "shown_slabs", "tags_of", "vectors_of"]

HIDDEN = -1
TAG_BYTES = 8

Bytes = npt.NDArray[np.uint8]


def row_bytes(dimension: int) -> int:
    """Return what a row of ``dimension`` numbers takes in a block, its tag included; bytes."""
    return 2 * dimension + TAG_BYTES


def vectors_of(data: Bytes, dimension: int) -> npt.NDArray[np.float16]:
    """Return the rows of a block, float16 (n, dimension), in place."""
    rows = len(data) // row_bytes(dimension)
    return data[: rows * 2 * dimension].view(np.float16).reshape(rows, dimension)


def tags_of(data: Bytes, dimension: int) -> npt.NDArray[np.int64]:
    """Return the tags of a block's rows, int64 (n,), in place; n is a multiple of 4 at least, so that they align."""
    rows = len(data) // row_bytes(dimension)
    return data[rows * 2 * dimension : rows * row_bytes(dimension)].view(np.int64)


class ShownSlabs(NamedTuple):
    """What a pool's owner tells: how long its vectors are, the names of its blocks, and the vectors' generation."""

    dimension: int
    names: list[str]
    generation: int = 0


def show_slabs(path: Path, slabs: ShownSlabs) -> None:
    """Put the file in place of what was there.

    Raises:
        OSError: it could not be written.
    """
    draft = path.with_name(f"{path.name}.draft")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
        file.write(encode(list(slabs)))
    draft.replace(path)


def hide_slabs(path: Path) -> None:
    """Remove the file, if it is there."""
    with contextlib.suppress(OSError):  # it is of no use to anybody, and does no harm
        path.unlink(missing_ok=True)


def shown_slabs(path: Path) -> ShownSlabs | None:
    """Return what the file says; None where there is none, or none that can be read."""
    try:
        dimension, names, generation = decode(path.read_bytes())
        return ShownSlabs(int(dimension), [str(name) for name in names], int(generation))
    except (OSError, ValueError, TypeError):
        return None
