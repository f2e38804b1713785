"""Texts on their way to vectors, of which equal ones are embedded once. Owned by the coordinator.

A text whose vector is known gets a copy of it. One that is equal to a text at the embedder waits for that one's, but
where it is to go ahead and the other is not. All others are given to the embedder. Where an embedding fails, those that
waited for it are embedded for themselves: what else was in its unit may have been to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mos_pipeline.memory.known_texts import NO_DIGEST, KnownTexts
from mos_pipeline.runtime.supervisor import Outcome

__all__ = ["EqualTexts", "Sending"]

# Embeds these texts of a sending, by their places, and tells the outcome.
Embed = Callable[["Sending", list[int], Callable[[Outcome], None]], None]


@dataclass(slots=True, eq=False)
class Sending:
    """Texts that are answered together.

    Attributes:
        digests: what tells the texts from others, one each.
        rows: where their vectors go.
        ahead: whether they go before others.
        answer: is told the outcome, once.
        left: texts without a vector so far.
        units: how many parts of it the embedder has.
        failed: the outcome of a part that failed, if one has.
        answered: whether the outcome was told, or is about to be.
    """

    texts: Sequence[str]
    digests: Sequence[int]
    rows: list[int]
    ahead: bool
    answer: Callable[[Outcome], None]
    left: int
    units: int = 0
    failed: Outcome | None = None
    answered: bool = False

    @property
    def over(self) -> bool:
        """Whether it can be answered: nothing is missing, or something won't come; and nobody writes to its rows."""
        return not self.units and (not self.left or self.failed is not None)


class EqualTexts:
    """Has texts embedded, each once.

    Attributes:
        computed: texts that were embedded.
        reused: texts that were not, as an equal one's vector was copied.
    """

    def __init__(
        self,
        known: KnownTexts,
        embed: Embed,
        copy: Callable[[Sequence[int], Sequence[int]], None],
        soon: Callable[[Callable[[], None]], None],
    ) -> None:
        """Find vectors in ``known``; ``copy(rows, others)`` copies them; ``soon(call)`` makes a call after this one."""
        self._known = known
        self._embed = embed
        self._copy = copy
        self._soon = soon
        self._coming: dict[int, Sending] = {}  # by digest, whose text it is that the embedder has
        self._waiting: dict[int, list[tuple[Sending, int]]] = {}  # texts that wait for it: whose, and their places
        self.computed = 0
        self.reused = 0

    def send(self, sending: Sending) -> None:
        """Have vectors made, or copied, for all of its texts; it is answered later, never within this call."""
        self._give(sending, range(len(sending.texts)))

    def _give(self, sending: Sending, places: Sequence[int]) -> None:
        """Take care of the texts at ``places``."""
        fresh, known, theirs = list[int](), list[int](), list[int]()
        for place in places:
            digest = sending.digests[place]
            row = self._known.find(digest)
            if row is not None:
                known.append(row)
                theirs.append(sending.rows[place])
            elif not self._wait(sending, place, digest):
                fresh.append(place)
        if known:
            self._share(known, theirs)
            sending.left -= len(known)
        if fresh:
            sending.units += 1
            self._embed(sending, fresh, partial(self._embedded, sending, fresh))
        self._answer_soon(sending)

    def _wait(self, sending: Sending, place: int, digest: int) -> bool:
        """Let a text wait for an equal one at the embedder, if there is one; else let others wait for it."""
        if digest == NO_DIGEST:
            return False
        coming = self._coming.get(digest)
        if coming is None:
            self._coming[digest] = sending
        elif coming.ahead >= sending.ahead:
            self._waiting.setdefault(digest, []).append((sending, place))
            return True
        return False

    def _share(self, rows: Sequence[int], others: Sequence[int]) -> None:
        self._copy(rows, others)
        self.reused += len(others)

    def _embedded(self, sending: Sending, places: list[int], outcome: Outcome) -> None:
        sending.units -= 1
        waiting = [self._arrived(sending, place) for place in places]
        if outcome.fate == "done":
            sending.left -= len(places)
            self.computed += len(places)
            for place, others in zip(places, waiting, strict=True):
                self._enter(sending.digests[place], sending.rows[place], others)
        else:
            sending.failed = outcome
            for others in waiting:
                self._let_down(others)
        if sending.over and not sending.answered:
            if sending.failed is not None:
                self._known.gone(sending.rows)  # of an earlier part: whoever asked may put other vectors there
            sending.answered = True
            sending.answer(sending.failed or outcome)

    def _arrived(self, sending: Sending, place: int) -> Sequence[tuple[Sending, int]]:
        """Return who waits for a text that comes no more."""
        digest = sending.digests[place]
        if self._coming.get(digest) is not sending:
            return ()
        del self._coming[digest]
        return self._waiting.pop(digest, ())

    def _enter(self, digest: int, row: int, waiting: Sequence[tuple[Sending, int]]) -> None:
        """Know the vector in ``row`` from now on, and copy it for those who waited for it."""
        if digest != NO_DIGEST:
            self._known.enter(digest, row)
        others = [(other, place) for other, place in waiting if other.failed is None]
        if others:
            self._share([row] * len(others), [other.rows[place] for other, place in others])
        for other, _ in others:
            other.left -= 1
            self._answer_soon(other)

    def _let_down(self, waiting: Sequence[tuple[Sending, int]]) -> None:
        """Have those embedded for themselves who have waited for a text that could not be."""
        for other, place in waiting:
            if other.failed is None:
                self._give(other, [place])

    def _answer_soon(self, sending: Sending) -> None:
        if sending.over and not sending.answered:
            sending.answered = True
            self._soon(partial(sending.answer, sending.failed or _DONE))


_DONE = Outcome(0, "done")
