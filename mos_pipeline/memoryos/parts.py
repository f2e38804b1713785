"""The parts of the original that its callers reach into. Each shows the present state, made anew at every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mos_pipeline.arguments import checked_count, checked_text
from mos_pipeline.config import Config
from mos_pipeline.engine.details import FactDetail
from mos_pipeline.engine.engine import Engine
from mos_pipeline.engine.retrieval import Question
from mos_pipeline.memory.state import Scope
from mos_pipeline.memoryos import shapes
from mos_pipeline.messages import KnowledgeHit
from mos_pipeline.pipeline import MemoryPipeline

__all__ = [
    "GONE",
    "MODEL_LOADS_S",
    "MidTermMemory",
    "Part",
    "Retriever",
    "Scoped",
    "ShortTermMemory",
    "inside",
    "scopes_told",
]

LOWEST_SEGMENT = 0.1  # the original's defaults: no choice of anybody's
MOST_SESSIONS = 5
MODEL_LOADS_S = 60.0  # the original's constructor waited for it; here the first question may have to

_WRITTEN = "memory is made from what add_memory is given, and unmade by pipeline.forget; nothing else writes to it"
_FOUND = "retriever.retrieve_context finds pages and knowledge"
_FILES = "data_storage_path is a store, not JSON files; `mos-pipeline export --format memoryos` writes those"
_MODEL = "models are asked by processes of the pipeline; get_response takes a function of yours as model="
# What the original has and this doesn't, and what to use instead.
GONE = {
    **dict.fromkeys(("add_qa_pair", "pop_oldest", "add_session", "insert_pages_into_session", "evict_lfu"), _WRITTEN),
    **dict.fromkeys(("update_user_profile", "add_user_knowledge", "add_assistant_knowledge"), _WRITTEN),
    **dict.fromkeys(("add_knowledge_entry", "update_page_connections", "rebuild_heap"), _WRITTEN),
    **dict.fromkeys(("search_sessions", "search_user_knowledge", "search_assistant_knowledge"), _FOUND),
    **dict.fromkeys(("file_path", "user_data_dir", "assistant_data_dir", "load", "save"), _FILES),
    **dict.fromkeys(("client", "updater"), _MODEL),
    "access_frequency": "sessions[…]['access_count_lfu'] tells it",
    "is_full": "compare len(get_all()) with max_capacity",
    "memory": "get_all() returns it",
}


def inside(pipeline: MemoryPipeline, user_id: str, assistant_id: str) -> tuple[Engine, Scope | None]:
    """Return the engine, once all that is stored has been read, and the scope, or None where it has no page.

    The one place that reaches behind the pipeline's face: the original shows what that doesn't.
    """
    with pipeline._restored_scope(user_id, assistant_id) as (_, scope):
        return pipeline._engine, scope


def scopes_told(engine: Engine, scope: Scope | None, assistant_id: str) -> list[Scope]:
    """Return the scopes whose facts about the assistant ``scope`` is told, its own first."""
    mine = [] if scope is None else [scope]
    if not engine.config.long_term.share_assistant_knowledge:
        return mine
    return mine + [one for one in list(engine.state.scopes) if one.assistant_id == assistant_id and one is not scope]


class Part:
    """What callers reach into; asked for what only the original has, it says what there is instead."""

    if not TYPE_CHECKING:  # which would take any name for one that is there

        def __getattr__(self, name: str) -> Any:
            kind = type(self).__name__
            if name in GONE:
                raise AttributeError(f"{kind}.{name} of the original is not here: {GONE[name]}", name=name, obj=self)
            raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=self)


class Scoped:
    """One (user, assistant) of a pipeline that may be closed meanwhile.

    Attributes:
        config: the pipeline's settings.
    """

    def __init__(self, pipeline: Callable[[], MemoryPipeline], config: Config, user_id: str, assistant_id: str) -> None:
        """``pipeline()`` returns it, or raises ClosedError."""
        self.pipeline = pipeline
        self.config = config
        self.user_id = user_id
        self.assistant_id = assistant_id

    def found(self) -> tuple[Engine, Scope | None]:
        """Return the engine, once all that is stored has been read, and the scope, or None where it has no page."""
        return inside(self.pipeline(), self.user_id, self.assistant_id)


class ShortTermMemory(Part):
    """The latest exchanges.

    Attributes:
        max_capacity: how many they are at the most.
    """

    def __init__(self, scoped: Scoped) -> None:
        self._scoped = scoped
        self.max_capacity = scoped.config.short_term.capacity

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


class MidTermMemory(Part):
    """The sessions.

    Attributes:
        max_capacity: how many they are at the most.
    """

    def __init__(self, scoped: Scoped) -> None:
        self._scoped = scoped
        self.max_capacity = scoped.config.mid_term.capacity

    @property
    def sessions(self) -> dict[str, dict[str, Any]]:
        """Sessions by id, with the original's keys; a copy with all pages and vectors: keep it, or it is made again."""
        engine, scope = self._scoped.found()
        if scope is None:
            return {}
        found = engine.details.sessions(scope)
        return {shapes.session_key(one.session_id): shapes.session(one) for one in found}

    @property
    def heap(self) -> list[tuple[float, str]]:
        """(-heat, session's id), the hottest first; a copy, without reading pages."""
        engine, scope = self._scoped.found()
        heats = [] if scope is None else engine.details.heats(scope)
        return sorted((-heat, shapes.session_key(session_id)) for session_id, heat in heats)

    def get_page_by_id(self, page_id: str) -> dict[str, Any] | None:
        """Return a page, in short-term memory or in a session; None where this user has none with that id."""
        engine, scope = self._scoped.found()
        page = self._scoped.pipeline().get(page_id)
        seq = None if page is None else engine.state.ids.resolve(page.page_id)
        if scope is None or page is None or seq is None:
            return None
        if (page.user_id, page.assistant_id) != (scope.user_id, scope.assistant_id):
            return None
        return next(map(shapes.page, engine.details.pages(scope, [seq])), None)


class Retriever(Part):
    """Finds what bears on a question.

    Attributes:
        retrieval_queue_capacity: how many pages are returned; may be changed.
    """

    def __init__(self, scoped: Scoped, capacity: int) -> None:
        self._scoped = scoped
        self.retrieval_queue_capacity = capacity

    def retrieve_context(
        self,
        user_query: str,
        user_id: str | None,  # noqa: ARG002 - callers name it
        segment_similarity_threshold: float = LOWEST_SEGMENT,
        page_similarity_threshold: float = 0.1,
        knowledge_threshold: float = 0.01,
        top_k_sessions: int = MOST_SESSIONS,
        top_k_knowledge: int = 20,
    ) -> dict[str, Any]:
        """Return what was found, under the original's keys: retrieved_pages, retrieved_user_knowledge and so on.

        Memory is this object's whatever ``user_id`` is, as in the original. Pages are found among all of the user's,
        those of short-term memory included, by words and vectors together. ``page_similarity_threshold`` leaves out
        those that share no word with the query and whose cosine is below it. Where one of
        ``segment_similarity_threshold`` and ``top_k_sessions`` is not the original's default, pages of sessions beyond
        them are left out: of the sessions whose summaries have at least that cosine, so many are searched. Pages that
        are in no session yet are found all the same. Knowledge is narrowed by ``retrieval.knowledge_k`` and
        ``retrieval.knowledge_cosine``, too, whose defaults are the original's.
        """
        scoped, pipeline = self._scoped, self._scoped.pipeline()
        engine, scope = scoped.found()
        far = frozenset[int]()
        checked_text("user_query", user_query)
        if scope is not None and (segment_similarity_threshold, top_k_sessions) != (LOWEST_SEGMENT, MOST_SESSIONS):
            most = checked_count("top_k_sessions", top_k_sessions, 0)
            far = engine.retrieval.far_pages(scope, user_query, segment_similarity_threshold, most, MODEL_LOADS_S)
        question = Question(user_query, self.retrieval_queue_capacity, without=far)
        found = pipeline._found(scoped.user_id, scoped.assistant_id, question, MODEL_LOADS_S)
        near = [hit for hit in found.pages if hit.words > 0 or (hit.dense or 0.0) >= page_similarity_threshold]
        engine, scope = scoped.found()  # a page may have come meanwhile
        seqs = [engine.state.ids.resolve(hit.page.page_id) for hit in near]
        details = [] if scope is None else engine.details.pages(scope, [seq for seq in seqs if seq is not None])

        def facts(hits: list[KnowledgeHit], *, of_user: bool) -> list[dict[str, Any]]:
            kept = [hit.fact for hit in hits if hit.score >= knowledge_threshold][:top_k_knowledge]
            mine = [] if scope is None else [scope]
            told = mine if of_user else scopes_told(engine, scope, scoped.assistant_id)
            vectors = engine.details.vectors(told, [one.text for one in kept], of_user=of_user)
            return [shapes.fact(FactDetail(one.text, one.timestamp, vectors[one.text])) for one in kept]

        return {
            "retrieved_pages": list(map(shapes.page, details)),
            "retrieved_user_knowledge": facts(found.user_knowledge, of_user=True),
            "retrieved_assistant_knowledge": facts(found.assistant_knowledge, of_user=False),
            "retrieved_at": shapes.present_time(),
        }
