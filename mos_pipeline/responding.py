"""Answering from memory: what it tells goes to whoever writes the answer, and the exchange becomes a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple, Self

from mos_pipeline.answering.model import EXTRACTIVE, ChatMessage, ChatModel, Limits
from mos_pipeline.answering.prompt import VERSION, Asked, compose
from mos_pipeline.answering.quoting import quotes
from mos_pipeline.answering.thoughts import ThoughtFilter, without_thoughts
from mos_pipeline.arguments import checked_count, checked_record, checked_text, checked_timestamp
from mos_pipeline.config import Config
from mos_pipeline.engine.chat import Chat
from mos_pipeline.engine.engine import Engine
from mos_pipeline.engine.reader import ReaderEngine
from mos_pipeline.engine.retrieval import Question
from mos_pipeline.errors import InputError, WorkerError
from mos_pipeline.memory.selection import Filter
from mos_pipeline.messages import QUOTES, PageRecord, Response, Retrieved
from mos_pipeline.reading import DEFAULT_ASSISTANT, Reading

__all__ = ["Responding", "ResponseStream"]

CALLER = "caller"


class Responding(Reading):
    """The methods that answer. Each may be called from any thread."""

    def respond(
        self,
        user_id: str,
        query: str,
        *,
        assistant_id: str = DEFAULT_ASSISTANT,
        metadata: Mapping[str, Any] | None = None,
        style_hint: str = "",
        relationship: str = "friend",
        max_tokens: int | None = None,
        k: int | None = None,
        timeout: float | None = None,
        remember: bool = True,
        model: ChatModel | None = None,
    ) -> Response:
        """Answer ``query`` from what this user's memory with this assistant tells, and add the exchange to it.

        With ``llm.provider: openai`` the endpoint writes it, before all other work that it is asked for, within
        ``response.deadline_s``. With ``extractive`` and without ``model`` nobody does: the pages that tell most are
        quoted, which the answer says. Such quotes are kept with the page, but nothing is learned from them.

        Args:
            user_id: whose memory it is.
            query: what the user said.
            assistant_id: pages belong to a user and an assistant together.
            metadata: what else the model should know of the conversation; it is kept with the page, too.
            style_hint: how the answer should be written.
            relationship: what the assistant is to the user.
            max_tokens: about how many tokens the whole prompt may take; ``response.prompt_tokens`` where None. What is
                cut first is told by ``mos_pipeline.answering.prompt.compose``.
            k: how many pages are looked for; ``retrieval.k`` where None.
            timeout: seconds to wait for the query's vector, as in ``retrieve``.
            remember: whether the exchange is added.
            model: who writes the answer: a function that takes chat messages and ``Limits`` and returns text, or
                yields pieces of it; the provider of ``llm.provider`` where None.

        Raises:
            InputError: an argument can't be taken, the store is open read-only, or ``model`` gives no text; nothing was
                added.
            WorkerError: the model answered nothing, or the endpoint gave no answer, or is down; the text tells why, and
                nothing was added.
            DeadlineError: the endpoint gave none in time; nothing was added. And as from ``retrieve``.
            ConfigError: there is neither a key for the endpoint nor its address.
            StoreError, ClosedError: as from ``retrieve``, and from ``add`` when the answer is there.
            BackpressureError: the answer is there, and the exchange could not be added.
        """
        exchange = self._exchange(
            user_id, query, assistant_id, metadata, style_hint, relationship, max_tokens, k, timeout, remember, model
        )
        return exchange.finished(without_thoughts("".join(exchange.pieces(stream=False))), complete=True)

    def respond_stream(
        self,
        user_id: str,
        query: str,
        *,
        assistant_id: str = DEFAULT_ASSISTANT,
        metadata: Mapping[str, Any] | None = None,
        style_hint: str = "",
        relationship: str = "friend",
        max_tokens: int | None = None,
        k: int | None = None,
        timeout: float | None = None,
        remember: bool = True,
        model: ChatModel | None = None,
    ) -> ResponseStream:
        """Answer as ``respond`` does, piece by piece; the exchange is added when the last one has been handed out.

        Memory is searched before this returns; the model is asked for the first piece with the first ``next``, which
        raises what ``respond`` does where there is no answer. Where the model fails later, what was handed out is not
        kept.
        """
        exchange = self._exchange(
            user_id, query, assistant_id, metadata, style_hint, relationship, max_tokens, k, timeout, remember, model
        )
        return ResponseStream(exchange.pieces(stream=True), exchange.finished)

    def _exchange(
        self,
        user_id: str,
        query: str,
        assistant_id: str,
        metadata: Mapping[str, Any] | None,
        style_hint: str,
        relationship: str,
        max_tokens: int | None,
        k: int | None,
        timeout: float | None,
        remember: bool,
        model: ChatModel | None,
    ) -> _Exchange:
        """Check everything, and search."""
        record = checked_record(user_id, query, "", assistant_id, None, metadata)
        checked_text("style_hint", style_hint)
        checked_text("relationship", relationship)
        if model is not None and not callable(model):
            raise InputError(f"model must be a function of chat messages and Limits, found {model!r:.100}")
        engine = self._open_engine()
        config = engine.config
        budget = config.response.prompt_tokens if max_tokens is None else checked_count("max_tokens", max_tokens)
        pages = config.retrieval.k if k is None else checked_count("k", k)
        if remember:  # what can't be kept is told before anybody answers
            self._owner("respond").intake.check(record)
        provider = config.llm.provider if model is None else CALLER
        if model is None and provider != EXTRACTIVE:
            model = _by(engine.chat)
        # Without quotes: a question that is asked twice would find itself, and nothing else after a while.
        question = Question(query, pages, Filter(lacking=QUOTES))
        found = self._found(user_id, assistant_id, question, timeout)
        add = self._added if remember else None
        if model is None:
            return _Exchange(config, record, found, provider, None, (), add)
        asked = Asked(query, relationship, style_hint, record.metadata, checked_timestamp(None))
        prompt = compose(asked, found, budget)
        response = (VERSION, prompt.tokens, prompt.left_out)
        return _Exchange(config, record, found, provider, (model, prompt.messages), response, add)

    def _added(self, record: PageRecord) -> str:
        return self._owner("respond").intake.add(record)[0]

    @property
    def _engine(self) -> Engine:
        return self._owner("this")

    def _owner(self, what: str) -> Engine:
        """Return the engine of a store that this process owns."""
        engine = self._open_engine()
        if isinstance(engine, ReaderEngine):
            raise InputError(
                f"{what}: {self!r} was opened read-only; do it in the process that owns the store, or open it without "
                "read_only where none does"
            )
        return engine


def _by(chat: Chat) -> ChatModel:
    """Return the endpoint as a model."""
    return lambda messages, limits: chat.pieces(messages, limits.temperature, limits.max_tokens, stream=limits.stream)


class _Exchange(NamedTuple):
    """A question on its way to being answered.

    Attributes:
        model: who answers, and what is asked; None where pages are quoted.
        prompt: for the response: version, tokens, pieces left out.
        add: what makes a page of a record; None where none is to be made.
    """

    config: Config
    record: PageRecord
    found: Retrieved
    provider: str
    model: tuple[ChatModel, list[ChatMessage]] | None
    prompt: tuple[int, ...]
    add: Callable[[PageRecord], str] | None

    def pieces(self, *, stream: bool) -> Iterator[str]:
        """Yield the answer as it comes, thoughts included."""
        if self.model is None:
            yield quotes(self.found)
            return
        model, messages = self.model
        settings = self.config.response
        answer = model(messages, Limits(settings.temperature, settings.answer_tokens, stream))
        yield from _texts(answer)

    def finished(self, text: str, *, complete: bool) -> Response:
        """Add the exchange with this answer, and return the response."""
        if not text and complete:
            raise WorkerError(
                "the model answered nothing (thoughts don't count), so the exchange was not added; ask again, or allow "
                f"it more than {self.config.response.answer_tokens} tokens (response.answer_tokens)"
            )
        page_id = None
        if self.add is not None:
            # The moment of the question is not kept: pages are in the order in which exchanges ended.
            record = self.record._replace(agent_response=text, timestamp=checked_timestamp(None))
            if self.provider == EXTRACTIVE:
                record = record._replace(metadata={**(record.metadata or {}), QUOTES: True})
            page_id = self.add(record)
        version, tokens, left_out = self.prompt or (0, 0, 0)
        return Response(text, page_id, complete, self.provider, version, tokens, left_out, self.found)


def _texts(answer: object) -> Iterator[str]:
    """Yield the pieces of a model's answer; what is no text is refused."""
    wanted = "model must return text, or yield pieces of text"
    if isinstance(answer, str):
        yield answer
        return
    if not isinstance(answer, Iterable):
        raise InputError(f"{wanted}, found {type(answer).__name__}; nothing was added")
    try:
        for piece in answer:
            if not isinstance(piece, str):
                raise InputError(f"{wanted}, found a piece of type {type(piece).__name__}; nothing was added")
            yield piece
    finally:
        close: Callable[[], None] | None = getattr(answer, "close", None)
        if close is not None:  # of a generator, or of an endpoint's stream
            close()


class ResponseStream:
    """The pieces of an answer; not for several threads at once.

    What was handed out is what was said: when the pieces are at their end, or at ``close()`` or the end of a ``with``
    before that, the exchange is added with just that text. Closed before the first piece, nothing was said, and nothing
    is added. A stream that is only dropped adds nothing either: the interpreter may find that out at any moment, even
    amid another ``add``. Where the model fails, nothing is added.

    Attributes:
        response: the whole, once it has ended or was closed; None before, and where nothing was said.
        guard: entered while the exchange is added; a program with signal handlers that raise holds them there.
    """

    def __init__(self, pieces: Iterator[str], finished: Callable[..., Response]) -> None:
        """``finished(text, complete=…)`` adds the exchange."""
        self.response: Response | None = None
        self.guard: Callable[[], AbstractContextManager[object]] = nullcontext
        self._pieces = pieces
        self._finished = finished
        self._filter = ThoughtFilter()
        self._said: list[str] = []
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        while not self._over:
            piece = self._next()
            if piece:
                self._said.append(piece)
                return piece
        raise StopIteration

    def close(self, seen: int | None = None) -> None:
        """End here: add what was handed out so far, if anything was; again, and it changes nothing.

        ``seen`` is how many of the pieces count, where whoever they are for has not got all of them.
        """
        if not self._over:
            self._said = self._said[:seen]
            self._end(complete=False)

    def abandon(self) -> None:
        """End here, and add nothing; after the end it changes nothing."""
        self._over = True
        self._close_pieces()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> str:
        """Return the next piece, which may be empty; at the end of all, what had been held back."""
        try:
            return self._filter.feed(next(self._pieces))
        except StopIteration:
            rest = self._filter.end()
            if not rest:
                self._end(complete=True)
            return rest
        except Exception:
            self._over = True  # whatever was said is no answer
            raise

    def _end(self, *, complete: bool) -> None:
        self._over = True
        if complete or self._said:
            with self.guard():
                self.response = self._finished("".join(self._said), complete=complete)
        self._close_pieces()

    def _close_pieces(self) -> None:
        close: Callable[[], None] | None = getattr(self._pieces, "close", None)
        if close is not None:
            close()
