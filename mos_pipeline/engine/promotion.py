"""Hot sessions become long-term memory: the profile and the knowledge, by two tasks in parallel.

Owned by the coordinator. A scope has one promotion under way at the most, and the next no sooner than
``long_term.promotion_pages`` pages later, which takes in all that became hot meanwhile. Where a model is asked, and
more pages are on their way into sessions, it waits for them until they are as many as one call takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.config import LongTerm
from mos_pipeline.engine.batches import LLM
from mos_pipeline.engine.bulk import Bulk
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.events import Event, Promoted
from mos_pipeline.engine.likeness import Likeness, Vector
from mos_pipeline.memory.outcomes import PromotionOutcome, Told
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import decode_record, own_words
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.store.reading import PageReader

__all__ = ["Promotion", "Stated", "enter_promotion", "show_facts"]

logger = logging.getLogger(__name__)

MOST_PAGES = 256  # read by one promotion, however short they are
BUDGETS = 2  # of a batch's text: what is told of it is much shorter

Found = tuple[bool, str, int]  # of the user's (else the assistant's)? the fact; its page


class Stated(NamedTuple):
    """A page that is a fact of the user, as it stands."""

    text: str
    timestamp: str


@dataclass(slots=True, eq=False)
class _Work:
    """A promotion under way; ``profile``, ``facts`` and ``owed`` are there once the tasks have answered."""

    seqs: list[int]
    timestamps: dict[int, str]
    profile: str = ""
    facts: list[Found] = field(default_factory=list)
    owed: list[str] = field(default_factory=list)


class Promotion:
    """The promotions of all scopes."""

    def __init__(
        self,
        config: LongTerm,
        state: MemoryState,
        reader: PageReader,
        derived: Derived,
        desk: Desk,
        embedding: Embedding,
        bulk: Bulk,
        more: Callable[[Scope], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``more(scope)`` tells whether pages are on their way into sessions; ``clock()`` is unix seconds."""
        self._config = config
        self._state = state
        self._reader = reader
        self._derived = derived
        self._desk = desk
        self._embedding = embedding
        self._bulk = bulk
        self._more = more
        self._clock = clock
        self._likeness = Likeness(config.merge_cosine, state, embedding)
        self._under_way: dict[int, _Work] = {}
        self._put_off = set[int]()  # scopes whose last promotion failed
        self._at_once = set[int]()  # scopes of which everything is to be analysed, hot or not
        self._waiting = list[Scope]()  # for the embedder, with profiles to be made anew
        self._reserved = set[int]()  # scopes whose long-term memory somebody else is about to change
        self._after = set[int]()  # those of them that have something to be promoted after that

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, nor waits for the embedder, or for what somebody has reserved."""
        return not self._under_way and not self._waiting and not self._after

    def consider(self, scope: Scope) -> None:
        """Promote what is hot in ``scope``, if it is time for it."""
        busy = scope.held or scope.lifting or not self.is_free(scope)
        if scope.number in self._reserved and self._hot(scope):
            self._after.add(scope.number)
        if busy or not self._embedding.ready or self._is_put_off(scope):
            return
        if self._bulk.tokens and scope.number not in self._at_once and not scope.remake:
            self._consider_many(scope)
            return
        if hot := self._hot(scope):
            self._begin(scope, hot, self._config.promotion_pages)
        else:
            self._at_once.discard(scope.number)

    def is_free(self, scope: Scope) -> bool:
        """Return whether no promotion of ``scope`` is under way, and nobody has reserved it."""
        return scope.number not in self._under_way and scope.number not in self._reserved

    def reserve(self, scope: Scope) -> bool:
        """Begin no promotion of ``scope`` until ``release``; return False where one is under way."""
        free = self.is_free(scope)
        if free:
            self._reserved.add(scope.number)
        return free

    def release(self, scope: Scope) -> None:
        """Go on with ``scope``: what has been reserved for is done."""
        self._reserved.discard(scope.number)
        self._after.discard(scope.number)
        self.consider(scope)

    def _hot(self, scope: Scope) -> list[int]:
        return self._state.hot_pages(scope, self._clock(), at_once=scope.number in self._at_once)

    def _consider_many(self, scope: Scope) -> None:
        """Promote what is hot in ``scope``; while more is on its way, when that is as much as one call takes."""
        hot = self._state.hot_pages(scope, self._clock())
        taken = self._taken(hot[:MOST_PAGES])
        if not hot or (taken == len(hot) and self._more(scope)):
            return
        self._begin(scope, hot, taken)

    def _taken(self, hot: Sequence[int]) -> int:
        """Return how many of the pages ``hot`` one call takes: as many as ever, or more where these are short."""
        every, count, room = self._config.promotion_pages, 0, BUDGETS * self._bulk.tokens
        for begin in range(0, len(hot), every):
            for record in self._reader.read_many(hot[begin : begin + every]):
                page = own_words(decode_record(record))
                room -= self._bulk.cost(page.user_input, page.agent_response)
                if room < 0 and count >= every:
                    return count
                count += 1
        return count

    def analyse(self, scope: Scope) -> None:
        """Promote every page of ``scope`` that is in a session and was not analysed yet, whatever its heat.

        One promotion follows the other until none is left, or one fails.
        """
        self._at_once.add(scope.number)
        self._put_off.discard(scope.number)
        self.take_up(scope)

    def _is_put_off(self, scope: Scope) -> bool:
        """Return whether the last promotion of ``scope`` failed, and not enough pages have come since."""
        if scope.long_term.since_promotion >= self._config.promotion_pages:
            self._put_off.discard(scope.number)
        return scope.number in self._put_off

    def go_on(self, scope: Scope) -> None:
        """Take up what is due in ``scope`` after pages were forgotten, unless a batch comes first and leads here."""
        if not scope.gaps:
            self.take_up(scope)

    def take_up(self, scope: Scope) -> None:
        """Promote what is due in ``scope``, now or when the embedder is ready."""
        if self._embedding.ready:
            self.consider(scope)
        elif self._hot(scope):
            self._waiting.append(scope)

    def embedder_ready(self) -> None:
        """Begin what has waited for the embedder."""
        while self._waiting:
            self.consider(self._waiting.pop())

    def forget(self, scope: Scope, seqs: set[int]) -> None:
        """Give up what is under way for ``scope``, where it or what it builds on tells of pages to be forgotten now."""
        work = self._under_way.get(scope.number)
        if work is not None and not seqs.isdisjoint(chain(work.seqs, scope.long_term.pages_told_of())):
            del self._under_way[scope.number]
            scope.long_term.since_promotion = self._config.promotion_pages  # it need not wait another time

    def _begin(self, scope: Scope, hot: Sequence[int], taken: int) -> None:
        """Promote the first ``taken`` of the pages ``hot``."""
        seqs, every = sorted(hot[:taken]), self._config.promotion_pages
        records = [decode_record(record) for record in self._reader.read_many(seqs)]
        pages = [list(own_words(record)[2:5]) for record in records]
        work = _Work(seqs, {seq: record.timestamp for seq, record in zip(seqs, records, strict=True)})
        self._under_way[scope.number] = work
        # Pages that come while it is under way count for the next one. So does a rest that is enough for it: many
        # batches may have come into sessions at once.
        scope.long_term.since_promotion = every if len(hot) - taken >= every else 0
        payload = {"profile": scope.long_term.profile.text, "pages": pages}
        self._desk.submit(LLM, "promotion", payload, partial(self._told, scope, work))

    def _current(self, scope: Scope, work: _Work) -> bool:
        return self._under_way.get(scope.number) is work

    def _told(self, scope: Scope, work: _Work, outcome: Outcome) -> None:
        if not self._current(scope, work) or outcome.fate == "down":
            return
        if outcome.fate != "done":
            self._give_up(scope, outcome.error)
            return
        work.profile, work.owed = outcome.result["profile"], outcome.result["owed"]
        work.facts = [
            (kind == "user", fact["text"], work.seqs[fact["page"]])
            for kind in ("user", "assistant")
            for fact in outcome.result[kind]
        ]
        self._embed(scope, work)

    def _give_up(self, scope: Scope, reason: str) -> None:
        logger.warning(
            "pages of user %r could not be made long-term memory (%s); they are tried again %d pages later",
            scope.user_id,
            reason,
            self._config.promotion_pages,
        )
        scope.long_term.since_promotion = 0
        self._put_off.add(scope.number)
        self._at_once.discard(scope.number)
        del self._under_way[scope.number]

    def _embed(self, scope: Scope, work: _Work) -> None:
        """Have those facts embedded that are not known word for word."""
        unknown = [text for of_user, text, _ in work.facts if scope.facts(of_user=of_user).find(text) is None]
        texts = list(dict.fromkeys(unknown))
        if texts:
            answer = partial(self._embedded, scope, work, texts)
            self._embedding.send(scope.fact_rows(of_user=True), texts, answer, ahead=True)
        else:
            self._apply(scope, work, {})

    def _embedded(self, scope: Scope, work: _Work, texts: list[str], rows: list[int], outcome: Outcome) -> None:
        """Take the facts' vectors out of the pool: which of them go in, and where, is told now."""
        found = self._embedding.pool.read(rows)
        self._embedding.pool.release(rows)
        if not self._current(scope, work) or outcome.fate == "down":
            return
        if outcome.fate != "done":
            self._give_up(scope, f"embedding its facts failed: {outcome.error}")
            return
        self._apply(scope, work, dict(zip(texts, found, strict=True)))

    def _apply(self, scope: Scope, work: _Work, vectors: dict[str, Vector]) -> None:
        told = list[Told]()
        for of_user, text, seq in work.facts:
            fact = Told(of_user, text, work.timestamps[seq], [seq], "", False, -1)
            told.append(self._likeness.compared(scope, fact, told, vectors) if text in vectors else fact)
        timestamp = work.timestamps[work.seqs[-1]]
        outcome = PromotionOutcome(work.seqs, work.profile, timestamp, told, self._clock(), work.owed)
        self._derived.event(self._entered(scope, outcome, vectors))
        del self._under_way[scope.number]
        self.consider(scope)  # a profile that is made anew may need more pages than one promotion takes

    def enter(self, scope: Scope, pages: Mapping[int, Stated], vectors: npt.NDArray[np.float16]) -> Event:
        """Enter pages that are facts; return what has to be written.

        It counts as no promotion: what is hot is still to be analysed, and when is told by the promotion before.

        Args:
            scope: whose pages.
            pages: by their numbers, in their order, at least one.
            vectors: float16 (n, d), of the facts.
        """
        told, by_text = list[Told](), dict[str, Vector]()
        for (seq, page), vector in zip(pages.items(), vectors, strict=True):
            fact = Told(True, page.text, page.timestamp, [seq], "", False, -1)
            before = next((other for other in told if other.text == page.text), None)
            if before is not None:
                fact = fact._replace(same_as=before.same_as)
            elif scope.facts(of_user=True).find(page.text) is None:
                by_text[page.text] = vector
                fact = self._likeness.compared(scope, fact, told, by_text)
            told.append(fact)
        outcome = PromotionOutcome([], "", told[-1].timestamp, told, self._clock())
        return self._entered(scope, outcome, by_text)

    def _entered(self, scope: Scope, outcome: PromotionOutcome, vectors: dict[str, Vector]) -> Event:
        """Enter an outcome whose new facts have ``vectors``; return the event that tells of it."""
        since = scope.long_term.since_promotion
        enter_promotion(self._state, scope, outcome, self._embedding.pool)
        scope.long_term.since_promotion = since
        brought = [vectors[fact.text] for fact in outcome.told if fact.new]
        stacked = np.array(brought, np.float16).reshape(len(brought), self._derived.dimension)
        return Event(scope.user_id, scope.assistant_id, Promoted(outcome, stacked))


def enter_promotion(state: MemoryState, scope: Scope, outcome: PromotionOutcome, pool: VectorPool) -> None:
    """Enter a promotion's outcome, whose new facts' rows are written; those that are kept are searchable from now."""
    pool.release(state.promote(scope, outcome))
    show_facts(scope, outcome.told, pool)


def show_facts(scope: Scope, entered: Iterable[Told], pool: VectorPool) -> None:
    """Make those of the facts that were entered searchable which are new, and were kept."""
    for told in entered:
        fact = scope.facts(of_user=told.of_user).find(told.text) if told.new else None
        if fact is not None and fact.row == told.row >= 0:
            pool.commit([told.row], np.array([scope.fact_tag(fact.fact_id)], np.int64))
