"""Embeddings made from words, for tests and for measuring everything around the model.

A word adds +1 or -1 at eight places that its hash tells (feature hashing; Weinberger et al. 2009), and the sum is
scaled to length 1. So the same text has the same vector on any machine, and texts that share words are close.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from mos_pipeline import config
from mos_pipeline.stages.backend import Prepared, Vectors

__all__ = ["FakeBackend"]

PLACES = 8  # for each word
MAX_WORDS = 100_000  # remembered; the table is begun anew beyond them
WORD = re.compile(r"\w+")


class _Numbers(dict[str, int]):
    """The number of every word that was met; ``learn`` numbers a new one."""

    def __init__(self, learn: Callable[[str], int]) -> None:
        super().__init__()
        self._learn = learn

    def __missing__(self, word: str) -> int:
        return self._learn(word)


class FakeBackend:
    """A backend without a model; ``embedding.fake_ms_per_text`` makes it as slow as one."""

    def __init__(self, settings: config.Embedding) -> None:
        self._pause_s = settings.fake_ms_per_text / 1000
        self._dimension = settings.fake_dimension
        self._query_prompt, self._document_prompt = settings.query_prompt, settings.document_prompt
        self._forget()

    def load(self) -> dict[str, Any]:
        """Return the identity."""
        found = {
            "model": "fake",
            "dimension": self._dimension,
            "digest": "fake-1",
            "backend": "fake",
            "precision": "fp32",
            "threads": 1,
        }
        return found | ({"document_prompt": self._document_prompt} if self._document_prompt else {})

    def prepare(self, texts: Sequence[str], *, query: bool = False) -> list[Prepared]:
        """Split texts into words; one without any counts as a single word."""
        prompt = self._query_prompt if query else self._document_prompt
        found = [WORD.findall((prompt + text).lower()) or [text] for text in texts]
        return [Prepared(len(words) + 2, words) for words in found]

    def encode(self, items: Sequence[Prepared]) -> Vectors:
        """Return the sums of the words' directions, float16 (n, dimension), each of length 1."""
        if self._pause_s:
            time.sleep(self._pause_s * len(items))
        return self.exact(items).astype(np.float16)

    def exact(self, items: Sequence[Prepared]) -> npt.NDArray[np.float64]:
        """Return the vectors before they are rounded, float64 (n, dimension), to compare searches with."""
        if len(self._numbers) > MAX_WORDS:
            self._forget()
        numbers = map(self._numbers.__getitem__, chain.from_iterable([item.content for item in items]))
        words = np.fromiter(numbers, np.intp)
        rows = np.repeat(np.arange(len(items)), [len(item.content) for item in items])
        places = rows[:, None] * self._dimension + self._places[words]
        flat = np.bincount(places.ravel(), self._signs[words].ravel(), len(items) * self._dimension)
        sums = flat.reshape(len(items), self._dimension)
        lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        lengths[lengths == 0] = 1  # words can cancel each other out; then there is nothing to tell
        exact: npt.NDArray[np.float64] = sums / lengths[:, None]
        return exact

    def _forget(self) -> None:
        self._numbers = _Numbers(self._learn)
        self._places: npt.NDArray[np.intp] = np.empty((1024, PLACES), np.intp)
        self._signs: npt.NDArray[np.float32] = np.empty((1024, PLACES), np.float32)

    def _learn(self, word: str) -> int:
        number = self._numbers[word] = len(self._numbers)
        if number == len(self._places):
            self._places = np.concatenate([self._places, np.empty_like(self._places)])
            self._signs = np.concatenate([self._signs, np.empty_like(self._signs)])
        hashed = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=2 * PLACES).digest()
        drawn = np.frombuffer(hashed, "<u2").astype(np.intp)
        self._places[number] = (drawn >> 1) % self._dimension
        self._signs[number] = (drawn & 1) * 2 - 1
        return number
