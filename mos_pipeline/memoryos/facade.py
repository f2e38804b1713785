"""Memoryos: the original's class, with its constructor, methods, defaults and return values."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mos_pipeline.answering.model import EXTRACTIVE, ChatModel
from mos_pipeline.arguments import checked_count, checked_id
from mos_pipeline.errors import ClosedError, InputError
from mos_pipeline.memoryos.parts import (
    MODEL_LOADS_S,
    LongTermMemory,
    MidTermMemory,
    Retriever,
    Scoped,
    ShortTermMemory,
    inside,
)
from mos_pipeline.memoryos.settings import of_no_use, pipeline_settings, read_config
from mos_pipeline.memoryos.shared import borrow
from mos_pipeline.pipeline import DEFAULT_ASSISTANT, MemoryPipeline

__all__ = ["Memoryos"]

logger = logging.getLogger(__name__)


class Memoryos:
    """One user's memory with one assistant, in the form of MemoryOS.

    All objects of one folder in one process share one ``MemoryPipeline``, and with it the model and all settings but
    ``retrieval_queue_capacity``. It is closed with the last of them, or at exit. Every method may be called from any
    thread. What an assistant says of itself is known to all its users, as it was in the original.

    Attributes:
        user_id, assistant_id, data_storage_path: as given; the path absolute.
        pipeline: the shared pipeline, for everything that the original had not.
        short_term_memory: ``get_all()``.
        mid_term_memory: ``sessions``.
        user_long_term_memory, assistant_long_term_memory: profile and knowledge.
        retriever: ``retrieve_context(…)``.
    """

    def __init__(
        self,
        user_id: str,
        openai_api_key: str | None,
        data_storage_path: str | os.PathLike[str],
        openai_base_url: str | None = None,
        assistant_id: str = DEFAULT_ASSISTANT,
        short_term_capacity: int = 10,
        mid_term_capacity: int = 2000,
        long_term_knowledge_capacity: int = 100,
        retrieval_queue_capacity: int = 7,
        mid_term_heat_threshold: float = 5.0,
        mid_term_similarity_threshold: float = 0.6,
        llm_model: str = "gpt-4o-mini",
        embedding_model_name: str = "all-MiniLM-L6-v2",
        embedding_model_kwargs: Mapping[str, Any] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        model: ChatModel | None = None,
    ) -> None:
        """Open the store in the folder ``data_storage_path``, made if need be, or share it where it is open already.

        Args:
            user_id: whose memory.
            openai_api_key: key of the endpoint. With neither key nor base URL no model is asked: the extractive
                provider does the work, and answers quote pages.
            data_storage_path: the store's folder.
            openai_base_url: address of the endpoint.
            assistant_id: which assistant's.
            short_term_capacity: as in MemoryOS, like all that follow.
            mid_term_capacity: sessions of a user.
            long_term_knowledge_capacity: facts about a user, and as many about the assistant.
            retrieval_queue_capacity: pages found for a question.
            mid_term_heat_threshold: heat at which a session is read for long-term memory.
            mid_term_similarity_threshold: from which on a topic joins a session.
            llm_model: the endpoint's model.
            embedding_model_name: a sentence-transformers model, or a folder with one.
            embedding_model_kwargs: arguments for the model's constructor; and ``prompt`` or ``prompt_name``, which go
                before pages and questions alike. Of the original's others some are always so (vectors are of length 1,
                batches are chosen by the pipeline); those that are not used a warning tells.
            config: settings of ``config.yaml``, by dotted or nested keys; they go before everything else.
            model: who writes answers in ``get_response``; see ``MemoryPipeline.respond``.

        Raises:
            InputError: an argument can't be taken.
            ConfigError: a setting can't, or the folder is open in this process with other settings.
            StoreLockedError: another process owns the store.
            StoreError: the folder is one of the original's (see ``mos-pipeline migrate``), or can't be used.
        """
        self.user_id = checked_id("user_id", user_id)
        self.assistant_id = checked_id("assistant_id", assistant_id)
        self.retrieval_queue_capacity = checked_count("retrieval_queue_capacity", retrieval_queue_capacity)
        if not isinstance(data_storage_path, str | os.PathLike) or not os.fspath(data_storage_path):
            raise InputError(f"data_storage_path must name a folder, found {data_storage_path!r:.100}")
        path = Path(data_storage_path).absolute()
        self.data_storage_path = str(path)
        defaults, chosen = pipeline_settings(
            {
                "openai_api_key": openai_api_key,
                "openai_base_url": openai_base_url,
                "short_term_capacity": short_term_capacity,
                "mid_term_capacity": mid_term_capacity,
                "long_term_knowledge_capacity": long_term_knowledge_capacity,
                "mid_term_heat_threshold": mid_term_heat_threshold,
                "mid_term_similarity_threshold": mid_term_similarity_threshold,
                "llm_model": llm_model,
                "embedding_model_name": embedding_model_name,
                "embedding_model_kwargs": embedding_model_kwargs,
            }
        )
        self._lease, new = borrow(path, defaults, {**chosen, **(config or {})})
        self._closed = False
        self._model = model
        if new:
            _tell(path, self._lease.config.llm.provider, embedding_model_kwargs)
        short_term = self._lease.config.short_term.capacity
        scoped = Scoped(lambda: self.pipeline, user_id, assistant_id, short_term, retrieval_queue_capacity)
        self.short_term_memory = ShortTermMemory(scoped)
        self.mid_term_memory = MidTermMemory(scoped)
        self.user_long_term_memory = LongTermMemory(scoped, of_user=True)
        self.assistant_long_term_memory = LongTermMemory(scoped, of_user=False)
        self.retriever = Retriever(scoped)

    @classmethod
    def from_config(cls, path: str | os.PathLike[str], **more: Any) -> Self:
        """Return the object that a ``config.json`` of the original describes; ``more`` are arguments over it.

        Raises:
            ConfigError: the file can't be read, or has unknown keys, which are named.
        """
        return cls(**{**read_config(path), **more})

    @property
    def pipeline(self) -> MemoryPipeline:
        """The pipeline that all objects of this folder share.

        Raises:
            ClosedError: this object is closed.
        """
        if self._closed:
            raise ClosedError(f"{self!r} was used after close(); make another one")
        return self._lease.pipeline

    def add_memory(
        self,
        user_input: str,
        agent_response: str,
        timestamp: str | None = None,
        meta_data: Mapping[str, Any] | None = None,
    ) -> None:
        """Accept one exchange: it is kept from then on, and worked off in the background.

        Raises:
            InputError, BackpressureError, StoreFullError, ClosedError: as from ``MemoryPipeline.add``.
        """
        self.pipeline.add(
            self.user_id,
            user_input,
            agent_response,
            assistant_id=self.assistant_id,
            timestamp=timestamp,
            metadata=meta_data,
        )

    def get_response(
        self,
        query: str,
        relationship_with_user: str = "friend",
        style_hint: str = "",
        user_conversation_meta_data: Mapping[str, Any] | None = None,
    ) -> str:
        """Answer from memory, and add the exchange to it; ``pipeline.respond_stream`` does so piece by piece.

        Raises:
            InputError, WorkerError, DeadlineError and others: as from ``MemoryPipeline.respond``; no error ever becomes
                an answer or a memory.
        """
        response = self.pipeline.respond(
            self.user_id,
            query,
            assistant_id=self.assistant_id,
            metadata=user_conversation_meta_data,
            style_hint=style_hint,
            relationship=relationship_with_user,
            k=self.retrieval_queue_capacity,
            timeout=MODEL_LOADS_S,
            model=self._model,
        )
        return response.text

    def get_user_profile_summary(self) -> str:
        """Return the user's profile; "None" where there is none."""
        return self.user_long_term_memory.get_raw_user_profile(self.user_id)

    def get_assistant_knowledge_summary(self) -> list[dict[str, Any]]:
        """Return what the assistant said of itself, to whichever user, the newest last."""
        return self.assistant_long_term_memory.get_assistant_knowledge()

    def force_mid_term_analysis(self, timeout: float | None = None) -> None:
        """Have long-term memory made now from all of mid-term memory that was not read for it, whatever its heat.

        Raises:
            DeadlineError, WorkerError and others: as from ``MemoryPipeline.analyse``.
        """
        self.pipeline.analyse(self.user_id, assistant_id=self.assistant_id, timeout=timeout)

    def get_memory_stats(self) -> dict[str, Any]:
        """Return how much of everything there is."""
        engine, scope = inside(self.pipeline, self.user_id, self.assistant_id)
        with engine.gate.lock:
            sessions = 0 if scope is None else len(scope.mid_term)
        return {
            "user_id": self.user_id,
            "short_term_count": len(self.short_term_memory.get_all()),
            "mid_term_sessions_count": sessions,
            "has_user_profile": self.get_user_profile_summary() != "None",
            "assistant_knowledge_count": len(self.get_assistant_knowledge_summary()),
        }

    def close(self) -> None:
        """Let go of the pipeline; the last object of a folder closes it. Again, and it changes nothing."""
        self._closed = True
        self._lease.give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Memoryos(user_id={self.user_id!r}, data_storage_path={self.data_storage_path!r})"


def _tell(path: Path, provider: str, kwargs: Mapping[str, Any] | None) -> None:
    """Say once for a folder what is other than a caller may expect."""
    if provider == EXTRACTIVE:
        logger.warning(
            "%s: no API key and no base URL were given, so no model is asked: the extractive provider makes topics, "
            "profile and knowledge, and answers quote pages",
            path,
        )
    if unused := of_no_use(kwargs or {}):
        logger.warning("%s: of embedding_model_kwargs %s are not used", path, ", ".join(unused))
