"""Texts on their way to the embedder, and the vector pool that it writes into. Owned by the coordinator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from mos_pipeline import config
from mos_pipeline.engine.desk import Answer, Desk
from mos_pipeline.engine.equal_texts import EqualTexts, Sending
from mos_pipeline.memory.known_texts import NO_DIGEST, KnownTexts, digest_of
from mos_pipeline.runtime.supervisor import Outcome, Role
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.stages.embed import EmbedStage
from mos_pipeline.stages.static_tier import StaticHome

__all__ = ["EMBEDDER", "Embedding", "RowsAnswer", "embedder_role", "weights_of"]

EMBEDDER = "embedder"
CREDIT = 16 << 20
TEXT_PIECES = 64  # of a page, as a rule
TURN_S = 0.02  # of the embedder's work may be one user's unit, where it is more than one batch
MOST_IN_TURN = 36  # texts: the coordinator takes most of a millisecond for them

RowsAnswer = Callable[[list[int], Outcome], None]


def embedder_role(settings: config.Config, weights: str = "", home: StaticHome | None = None) -> Role:
    """Return what the embedder's process is made of.

    Args:
        settings: all of them.
        weights: the digest of the store's model, if it has one.
        home: where the store keeps its static model.
    """
    return Role(EMBEDDER, EmbedStage, (settings.embedding, time.monotonic, None, weights, home), credit=CREDIT)


def weights_of(identity: Mapping[str, Any] | None) -> str:
    """Return the digest in the identity of a store's model; empty where it has none yet."""
    return str(identity["digest"]) if identity is not None else ""


class Embedding:
    """The coordinator's side of the embedder.

    Attributes:
        in_flight: texts that the embedder has not answered yet, and those that wait for an equal one of them.
        turn: how many texts of one user it may be given in one unit; a batch, if that is more, goes all the same.
        ready: whether it may be given texts: it runs, with the store's model.
    """

    def __init__(self, desk: Desk, settings: config.Embedding) -> None:
        """Give texts out by ``desk``."""
        self._desk = desk
        self._settings = settings
        self._limit = settings.in_flight_texts
        self._known = KnownTexts(settings.known_texts)
        self._equal = EqualTexts(self._known, self._submit, self._copy, desk.soon)
        self._pool: VectorPool | None = None
        self.turn = 1
        self.in_flight = 0
        self.ready = False

    @property
    def has_pool(self) -> bool:
        """Whether it is known how long vectors are."""
        return self._pool is not None

    @property
    def pool(self) -> VectorPool:
        """Where the vectors are.

        Raises:
            RuntimeError: no model has told yet how long they are.
        """
        if self._pool is None:
            raise RuntimeError("vectors were asked for before the embedder was ready")
        return self._pool

    def provide(self, pool: VectorPool) -> None:
        """Take the pool, once it is known how long vectors are."""
        self._pool = pool
        pool.watch(self._known.gone)

    @property
    def computed(self) -> int:
        """How many texts the embedder has computed."""
        return self._equal.computed

    @property
    def reused(self) -> int:
        """How many texts it had not to compute, since an equal one has a vector."""
        return self._equal.reused

    @property
    def known(self) -> int:
        """How many texts are known, so that an equal one need not be computed."""
        return len(self._known)

    def recall(self, digests: Iterable[int], rows: Iterable[int]) -> None:
        """Know texts that were embedded before the store was opened, the newest first, as far as there is room."""
        for digest, row in zip(digests, rows, strict=True):
            if digest != NO_DIGEST:
                self._known.recall(digest, row)

    @property
    def saturated(self) -> bool:
        """Whether the embedder has as many texts as it may have; an answer of its own changes that."""
        return self.in_flight >= self._limit

    def measured(self, pieces_per_s: float) -> None:
        """Note how many word pieces a second the embedder computes.

        A quick one takes less for a batch than the messages do by which it comes and goes, so it gets some at once.
        """
        self.turn = max(1, min(int(TURN_S * pieces_per_s / TEXT_PIECES), MOST_IN_TURN, self._limit))

    @property
    def half_full(self) -> bool:
        """Whether it has as many as leave room for what comes next: work in the background adds no more."""
        return 2 * self.in_flight >= self._limit

    def send(self, owner: int, texts: Sequence[str], answer: RowsAnswer, *, ahead: bool = False) -> None:
        """Have ``texts`` embedded into new rows of ``owner``; ``ahead`` of others', for most of the embedder's time.

        ``answer(rows, outcome)`` is called by the coordinator. Whoever answers commits the rows or releases them. The
        outcome's result are the digests of the texts, as ``known_texts.digest_of`` or NO_DIGEST, in their order.
        """
        rows = list(map(int, self.pool.allocate(owner, len(texts))))
        self.in_flight += len(texts)
        digests = self._digests(texts)
        back = partial(self._back, rows, digests, answer)
        self._equal.send(Sending(texts, digests, rows, ahead, back, left=len(texts)))

    def _digests(self, texts: Sequence[str]) -> list[int]:
        if not self._settings.known_texts:
            return [NO_DIGEST] * len(texts)
        return [digest_of(text, self._settings.max_chars) for text in texts]

    def _submit(self, sending: Sending, places: list[int], answer: Answer) -> None:
        texts = [sending.texts[place] for place in places]
        addresses = [list(self.pool.address(sending.rows[place])) for place in places]
        kind = "ahead" if sending.ahead else "embed"
        self._desk.submit(EMBEDDER, kind, [texts, addresses], answer, urgent=sending.ahead)

    def _copy(self, rows: Sequence[int], others: Sequence[int]) -> None:
        self.pool.write(others, self.pool.read(rows))

    def _back(self, rows: list[int], digests: list[int], answer: RowsAnswer, outcome: Outcome) -> None:
        self.in_flight -= len(rows)
        answer(rows, outcome._replace(result=digests))

    def close(self) -> None:
        """Remove the pool."""
        if self._pool is not None:
            self._pool.close()
