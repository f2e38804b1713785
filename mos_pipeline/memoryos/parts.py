"""The parts of the original that its callers reach into. Each shows the present state, made anew at every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mos_pipeline.arguments import checked_count, checked_text
from mos_pipeline.engine.details import FactDetail
from mos_pipeline.engine.engine import Engine
from mos_pipeline.engine.retrieval import Question
from mos_pipeline.memory.state import Scope
from mos_pipeline.memoryos import shapes
from mos_pipeline.messages import KnowledgeHit
from mos_pipeline.pipeline import MemoryPipeline

__all__ = ["MODEL_LOADS_S", "LongTermMemory", "MidTermMemory", "Retriever", "Scoped", "ShortTermMemory", "inside"]

LOWEST_SEGMENT = 0.1  # the original's defaults: no choice of anybody's
MOST_SESSIONS = 5
MODEL_LOADS_S = 60.0  # the original's constructor waited for it; here the first question may have to


def inside(pipeline: MemoryPipeline, user_id: str, assistant_id: str) -> tuple[Engine, Scope | None]:
    """Return the engine, once all that is stored has been read, and the scope, or None where it has no page.

    The one place that reaches behind the pipeline's face: the original shows what that doesn't.
    """
    with pipeline._restored_scope(user_id, assistant_id) as (_, scope):
        return pipeline._engine, scope


class Scoped:
    """One (user, assistant) of a pipeline that may be closed meanwhile.

    Attributes:
        capacity: how many pages are returned by a retrieval.
    """

    def __init__(
        self, pipeline: Callable[[], MemoryPipeline], user_id: str, assistant_id: str, short_term: int, capacity: int
    ) -> None:
        """``pipeline()`` returns it, or raises ClosedError."""
        self.pipeline = pipeline
        self.user_id = user_id
        self.assistant_id = assistant_id
        self.short_term = short_term
        self.capacity = capacity

    def found(self) -> tuple[Engine, Scope | None]:
        """Return the engine, once all that is stored has been read, and the scope, or None where it has no page."""
        return inside(self.pipeline(), self.user_id, self.assistant_id)


class ShortTermMemory:
    """The latest exchanges.

    Attributes:
        max_capacity: how many they are at the most.
    """

    def __init__(self, scoped: Scoped) -> None:
        self._scoped = scoped
        self.max_capacity = scoped.short_term

    def get_all(self) -> list[dict[str, Any]]:
        """Return them, oldest first: ``user_input``, ``agent_response``, ``timestamp``, and ``meta_data`` if any."""
        engine, scope = self._scoped.found()
        if scope is None:
            return []
        with engine.intake.lock:
            latest = scope.ring.latest()
        with engine.gate.lock:
            engine.gate.absorb()
        return [shapes.exchange(page) for page in engine.browsing.pages(latest)]


class MidTermMemory:
    """The sessions."""

    def __init__(self, scoped: Scoped) -> None:
        self._scoped = scoped

    @property
    def sessions(self) -> dict[str, dict[str, Any]]:
        """Sessions by id, with the original's keys; a copy with all pages and vectors: keep it, or it is made again."""
        engine, scope = self._scoped.found()
        if scope is None:
            return {}
        found = engine.details.sessions(scope)
        return {shapes.session_key(one.session_id): shapes.session(one) for one in found}


class LongTermMemory:
    """Profile and knowledge; the original had one object for the user's, and one for the assistant's."""

    def __init__(self, scoped: Scoped, *, of_user: bool) -> None:
        self._scoped = scoped
        self._of_user = of_user

    @property
    def user_profiles(self) -> dict[str, dict[str, Any]]:
        """The user's profile, by the user's id; empty while there is none."""
        if not self._of_user:
            return {}
        scoped = self._scoped
        profile = scoped.pipeline().profile(scoped.user_id, assistant_id=scoped.assistant_id)
        if not profile.text:
            return {}
        return {scoped.user_id: {"data": profile.text, "last_updated": shapes.shown_time(profile.updated)}}

    @property
    def knowledge_base(self) -> list[dict[str, Any]]:
        """Facts about the user, the newest last."""
        return list(map(shapes.fact, self._facts(of_user=True))) if self._of_user else []

    @property
    def assistant_knowledge(self) -> list[dict[str, Any]]:
        """Facts about the assistant, from all its users, the newest last."""
        return [] if self._of_user else list(map(shapes.fact, self._facts(of_user=False)))

    def get_raw_user_profile(self, user_id: str) -> str:
        """Return the profile's text; "None" where there is none."""
        return str(self.user_profiles.get(user_id, {"data": "None"})["data"])

    def get_user_knowledge(self) -> list[dict[str, Any]]:
        """Return ``knowledge_base``."""
        return self.knowledge_base

    def get_assistant_knowledge(self) -> list[dict[str, Any]]:
        """Return ``assistant_knowledge``."""
        return self.assistant_knowledge

    def _facts(self, *, of_user: bool) -> list[FactDetail]:
        engine, scope = self._scoped.found()
        if of_user or not engine.config.long_term.share_assistant_knowledge:
            return [] if scope is None else engine.details.facts([scope], of_user=of_user)
        scopes = [one for one in list(engine.state.scopes) if one.assistant_id == self._scoped.assistant_id]
        return engine.details.facts(scopes, of_user=False)


class Retriever:
    """Finds what bears on a question."""

    def __init__(self, scoped: Scoped) -> None:
        self._scoped = scoped
        self.retrieval_queue_capacity = scoped.capacity

    def retrieve_context(
        self,
        user_query: str,
        user_id: str,
        segment_similarity_threshold: float = LOWEST_SEGMENT,
        page_similarity_threshold: float = 0.1,
        knowledge_threshold: float = 0.01,
        top_k_sessions: int = MOST_SESSIONS,
        top_k_knowledge: int = 20,
    ) -> dict[str, Any]:
        """Return what was found, under the original's keys: retrieved_pages, retrieved_user_knowledge and so on.

        Pages are found among all of the user's, those of short-term memory included, by words and vectors together.
        ``page_similarity_threshold`` leaves out those that share no word with the query and whose cosine is below it.
        Where one of ``segment_similarity_threshold`` and ``top_k_sessions`` is not the original's default, pages of
        sessions beyond them are left out: of the sessions whose summaries have at least that cosine, so many are
        searched. Pages that are in no session yet are found all the same.
        """
        assistant_id, pipeline = self._scoped.assistant_id, self._scoped.pipeline()
        engine, scope = inside(pipeline, user_id, assistant_id)
        far = frozenset[int]()
        checked_text("user_query", user_query)
        if scope is not None and (segment_similarity_threshold, top_k_sessions) != (LOWEST_SEGMENT, MOST_SESSIONS):
            most = checked_count("top_k_sessions", top_k_sessions, 0)
            far = engine.retrieval.far_pages(scope, user_query, segment_similarity_threshold, most, MODEL_LOADS_S)
        question = Question(user_query, self.retrieval_queue_capacity, without=far)
        found = pipeline._found(user_id, assistant_id, question, MODEL_LOADS_S)
        near = [hit for hit in found.pages if hit.words > 0 or (hit.dense or 0.0) >= page_similarity_threshold]
        engine, scope = inside(pipeline, user_id, assistant_id)  # a page may have come meanwhile
        seqs = [engine.state.ids.resolve(hit.page.page_id) for hit in near]
        details = [] if scope is None else engine.details.pages(scope, [seq for seq in seqs if seq is not None])

        def facts(hits: list[KnowledgeHit]) -> list[dict[str, Any]]:
            return [
                {"knowledge": hit.fact.text, "timestamp": shapes.shown_time(hit.fact.timestamp)}
                for hit in hits
                if hit.score >= knowledge_threshold
            ][:top_k_knowledge]

        return {
            "retrieved_pages": list(map(shapes.page, details)),
            "retrieved_user_knowledge": facts(found.user_knowledge),
            "retrieved_assistant_knowledge": facts(found.assistant_knowledge),
            "retrieved_at": shapes.present_time(),
        }
