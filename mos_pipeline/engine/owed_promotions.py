"""Profile and knowledge that are owed: asked for again, and put in the place of what had stood in.

Owned by the coordinator. The profile is asked for over what it is now, and the pages that it is owed for; facts replace
those that only these pages state. As with batches, what stood in stays in force until one event replaces it.
"""

from __future__ import annotations

from collections.abc import Container
from functools import partial
from heapq import merge
from itertools import groupby, islice

import numpy as np

from mos_pipeline.engine.batches import LLM
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.events import Event, Repaid
from mos_pipeline.engine.likeness import Likeness, Vector
from mos_pipeline.engine.owed_work import Ended, Fate, OwedWork, take_answers
from mos_pipeline.engine.promotion import Promotion, show_facts
from mos_pipeline.memory.ascending import contains
from mos_pipeline.memory.facts import Fact
from mos_pipeline.memory.outcomes import PromotionRepaid, Told
from mos_pipeline.memory.owed import OF_PROMOTION
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import decode_record, own_words, stated_fact
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.reading import PageReader

__all__ = ["OwedPromotions"]


class OwedPromotions:
    """Repays what is owed of promotions; while it is at a scope, there is no other promotion of it."""

    def __init__(
        self,
        pages: int,
        likeness: Likeness,
        state: MemoryState,
        reader: PageReader,
        derived: Derived,
        desk: Desk,
        embedding: Embedding,
        promotion: Promotion,
    ) -> None:
        """Ask of so many ``pages`` at once."""
        self._pages = pages
        self._likeness = likeness
        self._state = state
        self._reader = reader
        self._derived = derived
        self._desk = desk
        self._embedding = embedding
        self._promotion = promotion

    def choose(self, scope: Scope, passed: Container[int]) -> list[int] | None:
        """Return the next pages of which the same tasks are owed; see ``Repayer``."""
        owed = merge(*(scope.owed.pages(task) for task in OF_PROMOTION))  # a page of both tasks comes twice
        left = (seq for seq, _ in groupby(owed) if seq not in passed)
        _, same = next(groupby(left, partial(self._tasks, scope)), (None, iter(())))
        seqs = list(islice(same, self._pages))
        busy = scope.held or scope.lifting or scope.remake or not self._promotion.is_free(scope)
        return None if seqs and busy else seqs

    def _tasks(self, scope: Scope, seq: int) -> list[str]:
        return [task for task in OF_PROMOTION if contains(scope.owed.pages(task), seq)]

    def ask(self, scope: Scope, seqs: list[int], ended: Ended) -> OwedWork:
        """Ask the model of pages from ``choose``; see ``Repayer``."""
        self._promotion.reserve(scope)
        work = OwedWork(scope, seqs, self._tasks(scope, seqs[0]), partial(self._ended, ended))
        records = [decode_record(record) for record in self._reader.read_many(seqs)]
        work.timestamps = [record.timestamp for record in records]
        work.stated = {seq for seq, record in zip(seqs, records, strict=True) if stated_fact(own_words(record))}
        pages = [list(own_words(record)[2:5]) for record in records]
        payload = {"profile": scope.long_term.profile.text, "pages": pages, "tasks": work.tasks}
        self._desk.submit(LLM, "promotion again", payload, partial(self._told, work))
        return work

    def _ended(self, ended: Ended, work: OwedWork, fate: Fate, repaid: int) -> None:
        self._promotion.release(work.scope)
        ended(work, fate, repaid)

    def _told(self, work: OwedWork, outcome: Outcome) -> None:
        if work.over or not take_answers(work, outcome):
            return
        texts = list(dict.fromkeys(text for _, text, _ in _facts(work)))
        if texts:
            answer = partial(self._embedded, work, texts)
            self._embedding.send(work.scope.fact_rows(of_user=True), texts, answer, ahead=True)
        else:
            self._apply(work, {})

    def _embedded(self, work: OwedWork, texts: list[str], rows: list[int], outcome: Outcome) -> None:
        found = self._embedding.pool.read(rows)
        self._embedding.pool.release(rows)
        if not work.over and outcome.fate == "done":
            self._apply(work, dict(zip(texts, found, strict=True)))
        else:
            work.end(Fate.UNUSABLE)

    def _apply(self, work: OwedWork, vectors: dict[str, Vector]) -> None:
        scope, pool = work.scope, self._embedding.pool
        if not all(scope.owed.owes(task, work.seqs) for task in work.answered):
            work.end(Fate.DROPPED)
            return
        # A page that is a fact tells that for good, whoever told others of it.
        retracted = [seq for seq in work.seqs if seq not in work.stated] if "knowledge" in work.answered else []
        told = self._new_facts(work, retracted, vectors)
        profile, stamp = work.answers.get("profile", ""), work.timestamps[-1]
        if scope.long_term.profile.seqs and scope.long_term.profile.seqs[-1] > work.seqs[-1]:
            stamp = scope.long_term.profile.updated
        outcome = PromotionRepaid(work.answered, work.seqs, profile, stamp, retracted, told)
        pool.release(self._state.repay_promotion(scope, outcome))
        show_facts(scope, told, pool)
        brought = [vectors[fact.text] for fact in told if fact.new]
        stacked = np.array(brought, np.float16).reshape(len(brought), self._derived.dimension)
        self._derived.event(Event(scope.user_id, scope.assistant_id, Repaid(outcome, stacked)))
        work.end(Fate.REPAID)

    def _new_facts(self, work: OwedWork, retracted: list[int], vectors: dict[str, Vector]) -> list[Told]:
        going = {of_user: work.scope.facts(of_user=of_user).only_of(retracted) for of_user in (True, False)}
        stamps, told = dict(zip(work.seqs, work.timestamps, strict=True)), list[Told]()
        for of_user, text, seq in _facts(work):
            fact = Told(of_user, text, stamps[seq], [seq], "", False, -1)
            known: Fact | None = work.scope.facts(of_user=of_user).find(text)
            if known is None or known in going[of_user]:
                fact = self._likeness.compared(work.scope, fact, told, vectors, going[of_user])
            told.append(fact)
        return told


def _facts(work: OwedWork) -> list[tuple[bool, str, int]]:
    """Return the facts that were told: of the user's (else the assistant's)? the text; its page."""
    answer = work.answers.get("knowledge") or {"user": [], "assistant": []}
    return [(whose == "user", fact["text"], work.seqs[fact["page"]]) for whose in answer for fact in answer[whose]]
