"""The static tier's backend: a text's vector is the sum of its word pieces' rows in a table, scaled to length 1.

The same that sentence-transformers' ``StaticEmbedding`` computes from the same files, without torch: the table is
gathered by numpy, which takes less time, and needs no six seconds and no 500 MB to be imported.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from mos_pipeline.config import Embedding
from mos_pipeline.errors import WorkerError
from mos_pipeline.stages.backend import Prepared, Vectors
from mos_pipeline.stages.sentence_transformer import set_environment
from mos_pipeline.stages.static_tier import StaticHome, find_static
from mos_pipeline.store.models import TABLE, TOKENIZER

__all__ = ["StaticBackend"]

logger = logging.getLogger(__name__)

MAX_WORDS = 100_000  # whose pieces are remembered; the table is begun anew beyond them
MAX_WORD_CHARS = 40
PROBES = (
    "User: It's  the café's “naïve” re-run,\tat 10:30 (p.m.)! Assistant: see www.example.org/a_b?c=1\nand 漢字。",
    " Leading, and trailing spaces ",
    "",
)
TINY = 1e-12  # instead of the length of a row of zeros

Pieces = list[int]


class StaticBackend:
    """A static model. A text without any word piece has a vector of zeros, which is like nothing.

    The pieces of words that were met before are remembered, where the tokenizer splits at spaces anyway: to split a
    page is most of the time that its vector takes.

    Args:
        settings: what the model is distilled from. Prompts and the model's arguments mean nothing to a table.
        home: where the store keeps its static model; None outside one.
    """

    def __init__(self, settings: Embedding, home: StaticHome | None = None) -> None:
        self._settings = settings
        self._home = home
        self._tokenizer: Any = None
        self._table: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._most = 0  # pieces of a text that are read
        self._by_words = False
        self._words: dict[str, Pieces] = {}

    def load(self) -> dict[str, Any]:
        """Find or distil the model; return its identity.

        Raises:
            ModelNotFoundError: what it is distilled from is nowhere to be found, or the store's own is lost.
            WorkerError: libraries are missing, or the model can't be distilled or read.
        """
        set_environment(download=self._settings.download)
        found = find_static(self._settings, self._home)
        try:
            from safetensors.numpy import load_file
            from tokenizers import Tokenizer

            self._table = load_file(found.folder / TABLE)["embedding.weight"].astype(np.float32)
            self._tokenizer = Tokenizer.from_file(str(found.folder / TOKENIZER))
        except Exception as error:  # both libraries raise kinds of their own, and all mean that it is broken
            raise WorkerError(
                f"{found.folder}: the static model can't be read ({error}); delete the folder, and have it made again"
            ) from error
        self._most = self._tokenizer.truncation["max_length"]
        self._by_words = all(self._joined(text) == self._split([text])[0] for text in PROBES)
        logger.info("static model from %s, %s", found.folder, "word by word" if self._by_words else "text by text")
        about = found.about
        told = {key: about[key] for key in ("model", "dimension", "digest", "distilled_from")}
        return {**told, "backend": "torch", "precision": "fp32", "tier": "static", "threads": 1}

    def prepare(self, texts: Sequence[str], *, query: bool = False) -> list[Prepared]:  # noqa: ARG002
        """Split texts into word pieces; questions are split as what is remembered is."""
        found = self._word_by_word(texts) if self._by_words else self._split(texts)
        return [Prepared(max(len(pieces), 1), pieces) for pieces in found]

    def encode(self, items: Sequence[Prepared]) -> Vectors:
        """Return the embeddings, float16 (n, dimension), each of length 1."""
        sums = np.empty((len(items), self._table.shape[1]), np.float32)
        for row, item in zip(sums, items, strict=True):
            np.add.reduce(self._table.take(np.array(item.content, np.intp), axis=0), axis=0, out=row)
        lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        sums /= np.maximum(lengths, TINY)[:, None]
        return sums.astype(np.float16)

    def _split(self, texts: Sequence[str]) -> list[Pieces]:
        return [found.ids for found in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _joined(self, text: str) -> Pieces:
        return [piece for pieces in self._split(text.split(" ")) for piece in pieces]

    def _word_by_word(self, texts: Sequence[str]) -> list[Pieces]:
        split = [text.split(" ") for text in texts]
        found = self._looked_up([words[: self._most] for words in split])
        for at, words in enumerate(split):
            if len(found[at]) < self._most < len(words):  # there were words without a piece
                found[at] = self._looked_up([words])[0]
        return found

    def _looked_up(self, split: Sequence[Sequence[str]]) -> list[Pieces]:
        if len(self._words) > MAX_WORDS:
            self._words.clear()
        known = self._words
        new = [word for word in dict.fromkeys(chain.from_iterable(split)) if word not in known]
        known.update(zip(new, self._split(new), strict=True))
        found = [list(islice(chain.from_iterable(map(known.__getitem__, words)), self._most)) for words in split]
        for word in new:
            if len(word) > MAX_WORD_CHARS:  # no word, or of a script without spaces: it will hardly come again
                del known[word]
        return found
