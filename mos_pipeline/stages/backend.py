"""What an embedding backend is: texts prepared once, then computed in whatever groups suit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["Backend", "DividingBackend", "Prepared", "Vectors", "readable"]

Vectors = npt.NDArray[np.float16]


class Prepared(NamedTuple):
    """A text as its backend wants it.

    Attributes:
        length: word pieces, special tokens included, as many as the model will read.
        content: the backend's own.
    """

    length: int
    content: Any


class Backend(Protocol):
    """Computes embeddings; used by one thread."""

    def load(self) -> dict[str, Any]:
        """Get ready; return ``{"model", "dimension", "digest", "backend", "precision"}`` and ``"threads"``.

        All but the last are the identity of the vectors, and so are ``"document_prompt"``, the text before what is
        remembered, and ``"options"``, arguments of the model's that change vectors, where there are any. Vectors of
        two identities are never compared.

        Raises:
            WorkerError: the model is nowhere to be found, or can't be loaded.
        """
        ...

    def prepare(self, texts: Sequence[str], *, query: bool = False) -> list[Prepared]:
        """Split texts into word pieces, those beyond the model's limit left out; questions, or what is remembered."""
        ...

    def encode(self, items: Sequence[Prepared]) -> Vectors:
        """Return the embeddings of at least one item, float16 (n, dimension), each of length 1."""
        ...


@runtime_checkable
class DividingBackend(Backend, Protocol):
    """A backend that may divide a batch into parts of like length by itself."""

    @property
    def divides(self) -> bool:
        """Whether it does, with the model that is loaded: what a text takes depends on its own length alone."""
        ...

    def taken(self, length: int) -> int:
        """Return how many word pieces are computed for a text of ``length`` where batches are divided."""
        ...


def readable(text: str, max_chars: int) -> str:
    """Return a text as a tokenizer can take it: its first ``max_chars`` characters, lone surrogates replaced.

    A tokenizer takes longer the longer the text, and would leave the rest out anyway. Lone surrogates, which chat
    exports hold, are no text to it at all.
    """
    return text[:max_chars].encode("utf-8", "replace").decode("utf-8")
