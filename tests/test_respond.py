"""Answering from memory: who answers, what is asked, and what becomes of the exchange."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import ClosedError, InputError, MemoryPipeline, WorkerError
from mos_pipeline.answering.model import ChatMessage, Limits
from mos_pipeline.messages import QUOTES, embedded_text
from mos_pipeline.service.client import RemoteMemory
from tests.faults.common import PATIENCE_S
from tests.support import all_pages, open_fake

BEAGLE = "I adopted a beagle named Rex."
QUESTION = "which beagle did I adopt?"


class Script:
    """A model that says what it is told, and notes what it was asked."""

    def __init__(self, *pieces: str | Exception) -> None:
        self.pieces = pieces
        self.asked: list[tuple[list[ChatMessage], Limits]] = []

    def __call__(self, messages: list[ChatMessage], limits: Limits) -> Iterator[str]:
        self.asked.append((messages, limits))
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    @property
    def read(self) -> str:
        return "\n".join(message["content"] for messages, _ in self.asked for message in messages)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryPipeline]:
    with open_fake(tmp_path / "store", workers=False, retrieval__timeout_s=0.1) as memory:
        memory.add("tom", BEAGLE, "Lovely! How old is he?", timestamp="2026-03-01 10:00:00")
        memory.add("ann", "My beagle is called Bella.", "A fine name.")
        yield memory


def test_without_a_model_the_best_pages_are_quoted_and_it_says_so(memory: MemoryPipeline) -> None:
    answer = memory.respond("tom", QUESTION)
    assert "No model writes answers here" in answer.text
    assert f"2026-03-01 10:00:00:\n  user: {BEAGLE}\n  assistant: Lovely! How old is he?" in answer.text
    assert "Bella" not in answer.text
    assert (answer.provider, answer.complete, answer.prompt_version, answer.prompt_tokens) == ("extractive", True, 0, 0)
    page = all_pages(memory, "tom")[-1]
    assert (page.page_id, page.user_input, page.agent_response) == (answer.page_id, QUESTION, answer.text)
    assert page.metadata == {QUOTES: True}
    assert "nothing to be quoted" in memory.respond("new", QUESTION).text


def test_where_nothing_is_near_the_latest_exchanges_are_quoted(memory: MemoryPipeline) -> None:
    memory.add("tom", "Tea, please.", "", timestamp="2026-03-02 10:00:00")
    for _ in range(2):
        answer = memory.respond("tom", "zzz").text
        assert "nothing near the question yet" in answer
        assert answer.index("Tea, please.") < answer.index(BEAGLE)


def test_asked_again_and_again_it_quotes_what_was_said_and_not_its_own_quotes(memory: MemoryPipeline) -> None:
    first = memory.respond("tom", QUESTION).text
    for _ in range(12):
        assert memory.respond("tom", QUESTION).text == first


def test_nothing_is_learned_from_quotes(tmp_path: Path) -> None:
    settings = {"short_term__capacity": 2, "retrieval__timeout_s": PATIENCE_S}
    with open_fake(tmp_path, **settings) as memory:
        memory.add("tom", "I adopted a beagle named Rex.", "How nice.")
        memory.add("tom", "I work as a banker in Vienna.", "I see.")
        memory.wait_idle(PATIENCE_S)
        for _ in range(4):
            assert BEAGLE in memory.respond("tom", QUESTION).text
        memory.analyse("tom", timeout=PATIENCE_S)
        assert memory.knowledge("tom", about="assistant") == []
        facts = memory.knowledge("tom")
        assert BEAGLE in [fact.text for fact in facts]
        quoted = {page.page_id for page in all_pages(memory, "tom")[2:]}
        assert not quoted.intersection(*[fact.page_ids for fact in facts if fact.text == BEAGLE])
        alone = memory.retrieve("tom", embedded_text(QUESTION, ""), k=10).pages
        assert sum(hit.dense is not None and hit.dense > 0.99 for hit in alone) == 4
        details = memory._engine.details.sessions(memory._engine.state.scopes[0])
        derived = " ".join([one.summary + " ".join(one.keywords) for one in details])
        derived += " ".join(page.overview for one in details for page in one.pages)
        assert "adopt" in derived
        assert not {"model", "writes", "user:", "assistant"} & set(derived.lower().split())
        found = memory.retrieve("tom", "Rex", k=10).pages
        assert [hit.page.user_input for hit in found if hit.words > 0] == [BEAGLE]


def test_a_model_is_shown_what_memory_tells_and_its_thoughts_are_left_out(memory: MemoryPipeline) -> None:
    model = Script("<think>A dog", ".</think>\n\nYou adopted ", "Rex.")
    answer = memory.respond(
        "tom", QUESTION, model=model, style_hint="like a pirate", relationship="captain", metadata={"channel": "web"}
    )
    assert answer.text == "You adopted Rex."
    assert answer.provider == "caller"
    assert answer.prompt_version == 1
    assert answer.prompt_tokens > 0
    for told in (BEAGLE, QUESTION, "like a pirate", "captain", '"channel": "web"'):
        assert told in model.read
    assert "Bella" not in model.read
    assert model.asked[0][1] == Limits(0.7, 1500, stream=False)
    page = all_pages(memory, "tom")[-1]
    assert (page.user_input, page.agent_response, page.metadata) == (QUESTION, "You adopted Rex.", {"channel": "web"})
    assert memory.respond("tom", "and then?", model=lambda *_: "as one text").text == "as one text"
    assert memory.respond("tom", "and then?", model=lambda *_: "a thought</think>said").text == "said"


def test_profile_facts_and_overviews_are_shown(tmp_path: Path) -> None:
    settings = {"short_term__capacity": 2, "retrieval__timeout_s": PATIENCE_S}
    with open_fake(tmp_path, **settings) as memory:
        memory.add("tom", BEAGLE, "I am from Ghent, in Belgium.")
        memory.add("tom", "My beagle Rex likes the garden.", "Gardens are lovely.")
        memory.add("tom", "Let us talk about violins.", "Gladly.")
        memory.add("tom", "Violins are old.", "They are.")
        memory.analyse("tom", timeout=PATIENCE_S)
        model = Script("Rex.")
        answer = memory.respond("tom", QUESTION, model=model)
        for heading in (
            "What this person is like",
            "Facts about this person",
            "What you said of yourself",
            "What earlier conversations were about",
            "Earlier exchanges that may bear on the question",
            "The latest exchanges, oldest first",
        ):
            assert f"\n{heading}:\n" in model.read
        assert "I am from Ghent" in model.read
        assert answer.left_out == 0
        little = memory.respond("tom", QUESTION, model=Script("Rex."), max_tokens=420)
        assert little.left_out > 0
        assert little.prompt_tokens <= 420


def test_what_can_not_be_kept_is_told_before_anybody_is_asked(memory: MemoryPipeline, tmp_path: Path) -> None:
    model = Script("a")
    wrong: list[dict[str, Any]] = [
        {"metadata": {"set": {1}}},
        {"metadata": {1: 2}},
        {"query": None},
        {"style_hint": 7},
        {"relationship": None},
        {"max_tokens": 0},
        {"max_tokens": 10},
        {"k": 0},
        {"assistant_id": ""},
        {"timeout": "soon"},
    ]
    for arguments in wrong:
        with pytest.raises(InputError):
            memory.respond(**{"user_id": "tom", "query": QUESTION, "model": model, **arguments})
    with MemoryPipeline.open(tmp_path / "store", config=memory._engine.config, read_only=True, workers=False) as reader:
        with pytest.raises(InputError, match=r"respond: .* was opened read-only"):
            reader.respond("tom", QUESTION, model=model)
        assert not model.asked
        assert reader.respond("tom", QUESTION, model=model, remember=False).text == "a"
    assert len(all_pages(memory)) == 2


def test_where_the_model_fails_or_says_nothing_nothing_becomes_memory(memory: MemoryPipeline) -> None:
    for model, error in (
        (Script("half an ans", RuntimeError("the endpoint is gone")), RuntimeError),
        (Script("<think>and never an answer"), WorkerError),
        (Script(" \n"), WorkerError),
        (Script(), WorkerError),
    ):
        with pytest.raises(error):
            memory.respond("tom", QUESTION, model=model)
        stream = memory.respond_stream("tom", QUESTION, model=model)
        with pytest.raises(error), stream:
            list(stream)
        assert stream.response is None
        assert list(stream) == []
    assert len(all_pages(memory)) == 2


def test_a_stream_hands_out_pieces_and_adds_the_whole_at_its_end(memory: MemoryPipeline) -> None:
    model = Script("<thi", "nk>hm</th", "ink> You ", "adopted", " Rex", ".", " ")
    stream = memory.respond_stream("tom", QUESTION, model=model)
    assert not model.asked
    pieces = [next(stream)]
    assert stream.response is None
    assert len(all_pages(memory)) == 2
    pieces += stream
    assert pieces == ["You", " adopted", " Rex", "."]
    assert model.asked[0][1].stream
    assert stream.response is not None
    assert (stream.response.text, stream.response.complete) == ("You adopted Rex.", True)
    stream.close()
    assert [page.agent_response for page in all_pages(memory, "tom")[1:]] == ["You adopted Rex."]
    quoted = memory.respond_stream("tom", QUESTION)
    assert BEAGLE in "".join(quoted)
    assert quoted.response is not None
    assert quoted.response.provider == "extractive"


def test_of_a_stream_that_is_closed_before_its_end_what_was_handed_out_is_kept(memory: MemoryPipeline) -> None:
    entered = list[str]()

    @contextmanager
    def guard() -> Iterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    model = Script("You ", "adopted ", "Rex.")
    with memory.respond_stream("tom", QUESTION, model=model) as stream:
        stream.guard = guard
        for piece in stream:
            if "adopted" in piece:
                break
    assert stream.response is not None
    assert (stream.response.text, stream.response.complete) == ("You adopted", False)
    assert entered == ["in", "out"]
    assert list(stream) == []
    assert [page.agent_response for page in all_pages(memory, "tom")[1:]] == ["You adopted"]


def test_a_stream_that_never_began_or_is_only_dropped_adds_nothing(memory: MemoryPipeline) -> None:
    with memory.respond_stream("tom", QUESTION, model=Script("Rex.")) as stream:
        pass
    assert stream.response is None
    dropped = memory.respond_stream("tom", QUESTION, model=Script("You ", "adopted ", "Rex."))
    next(dropped)
    del dropped
    assert len(all_pages(memory)) == 2


def test_not_to_be_remembered(memory: MemoryPipeline) -> None:
    assert memory.respond("tom", QUESTION, remember=False).page_id is None
    stream = memory.respond_stream("tom", QUESTION, remember=False, model=Script("Rex."))
    assert "".join(stream) == "Rex."
    assert stream.response is not None
    assert stream.response.page_id is None
    assert len(all_pages(memory)) == 2


def test_a_stream_whose_pipeline_is_closed_meanwhile_says_so(memory: MemoryPipeline) -> None:
    stream = memory.respond_stream("tom", QUESTION, model=Script("Rex.", "Really."))
    next(stream)
    memory.close()
    with pytest.raises(ClosedError):
        list(stream)


def test_beside_its_owner_it_is_answered_by_it(memory: MemoryPipeline) -> None:
    with RemoteMemory(memory._engine.store.folder.root) as remote:
        answer = remote.respond("tom", QUESTION, metadata={"channel": "web"}, timeout=0.1)
        assert BEAGLE in answer.text
        assert answer.retrieved.pages[0].page.user_input == BEAGLE
        page = memory.get(answer.page_id or "")
        assert page is not None
        assert page.metadata == {"channel": "web", QUOTES: True}
        assert remote.respond("tom", QUESTION, remember=False, timeout=0.1).page_id is None


def test_analyse_reads_all_of_mid_term_memory_however_cool_it_is(tmp_path: Path) -> None:
    settings = {"short_term__capacity": 2, "mid_term__heat_threshold": 1000.0, "long_term__promotion_pages": 3}
    with open_fake(tmp_path, **settings) as memory:
        for number in range(8):
            memory.add("tom", f"I adopted a beagle named Rex{number}.", "How nice.")
        memory.wait_idle(PATIENCE_S)
        assert memory.profile("tom").text == ""
        memory.analyse("tom", timeout=PATIENCE_S)
        assert memory.profile("tom").text
        engine = memory._engine
        scope = engine.state.find("tom", "default_assistant_profile")
        assert scope is not None
        assert [list(session.fresh) for session in scope.mid_term.sessions] == [[]] * len(scope.mid_term)
        memory.analyse("tom", timeout=PATIENCE_S)
        memory.analyse("nobody", timeout=PATIENCE_S)
        told = memory.profile("tom").text
        memory.add("tom", "I work as a banker in Vienna.", "")
        memory.add("tom", "I have two brothers.", "")
        memory.wait_idle(PATIENCE_S)
        assert memory.profile("tom").text == told, "it goes on by heat afterwards"
    with open_fake(tmp_path, workers=False, **settings) as memory, pytest.raises(InputError, match="workers=False"):
        memory.analyse("tom")
