"""Another embedding model: refused, or the store's vectors are made again by it while the store serves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mos_pipeline import (
    InputError,
    MemoryPipeline,
    ModelMismatchError,
    ModelNotFoundError,
    Page,
    Retrieved,
    WorkerError,
)
from mos_pipeline.config import Embedding
from mos_pipeline.engine import embedding
from mos_pipeline.engine.bearers import groups, text_of
from mos_pipeline.engine.engine import Engine
from mos_pipeline.messages import decode_record, embedded_text
from mos_pipeline.stages.fake_backend import FakeBackend
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.derived import decode_vectors
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.verify import verify_store
from tests.faults.common import check_consistent, frames_of, nothing_left, until
from tests.faults.stages import BROKEN, POISON, BrokenEmbedStage, PoisonedEmbedStage
from tests.readers.common import IDLE_S, SETTINGS, fill, settled
from tests.support import all_pages, open_fake, page_text
from tests.tiny_models import make_bert

OLD, NEW = 384, 500
USERS = {"ann": range(40), "ben": range(40, 61), "cem": range(61, 66)}
LATER = 1000  # numbers of pages that come while vectors are made again
CHANGED: dict[str, Any] = {**SETTINGS, "embedding__fake_dimension": NEW}
SLOW: dict[str, Any] = {**CHANGED, "embedding__fake_ms_per_text": 20.0}


def own_word(page: Page) -> str:
    """Return the word of a page that no other has."""
    return page.user_input.split(". ")[1].split()[0]


def ask(memory: MemoryPipeline, page: Page, **options: Any) -> Retrieved:
    return memory.retrieve(page.user_id, own_word(page), k=1, **options)


def derived(memory: MemoryPipeline) -> dict[str, Any]:
    """What memory has made of pages, and the pages."""
    found: dict[str, Any] = {"pages": all_pages(memory)}
    for user in memory.users():
        sessions = sorted(memory.sessions(user, limit=1000), key=lambda session: session.session_id)
        found[user] = [
            [(one.session_id, one.summary, one.keywords, one.timestamp, one.page_ids) for one in sessions],
            memory.profile(user),
            [memory.knowledge(user, about=about) for about in ("user", "assistant")],
        ]
    return found


def expected(text: str, dimension: int, prompt: str = "") -> np.ndarray[Any, Any]:
    backend = FakeBackend(Embedding(backend="fake", fake_dimension=dimension, document_prompt=prompt))
    vector: np.ndarray[Any, Any] = backend.encode(backend.prepare([text]))[0]
    return vector


def check_vectors(memory: MemoryPipeline, dimension: int, prompt: str = "") -> None:
    """Check that every page, summary and fact has this model's vector, and that there are no others."""
    engine = memory._engine
    assert isinstance(engine, Engine)
    pool, count = engine.embedding.pool, 0
    for seq in range(len(engine.state.pages)):
        if engine.state.pages.is_kept(seq):
            record = decode_record(engine.reader.read(seq))
            text = embedded_text(record.user_input, record.agent_response)
            assert np.array_equal(pool.read([engine.state.pages.row(seq)])[0], expected(text, dimension, prompt))
            count += 1
    for scope in engine.state.scopes:
        for _, bearers in groups(scope):
            for bearer, _ in bearers:
                assert np.array_equal(pool.read([bearer.row])[0], expected(text_of(bearer), dimension, prompt))
                count += 1
    stats = memory.stats()
    assert (stats.vectors, stats.unlifted, stats.backlog_pages, stats.backlog_bytes) == (count, 0, 0, 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A store made with the old model, with sessions, profiles and facts, and what it tells."""
    path = tmp_path_factory.mktemp("made") / "store"
    with open_fake(path, **SETTINGS) as memory:
        for user, numbers in USERS.items():
            fill(memory, user, numbers)
        settled(memory)
        told = derived(memory)
        check_vectors(memory, OLD)
    assert all(told[user][0] for user in USERS)
    assert told["ann"][1].text
    assert told["ann"][2][0]
    return path, told


@pytest.fixture
def store(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "store"))


@pytest.fixture
def told(made: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return made[1]


# Refused


@pytest.mark.parametrize(
    ("settings", "differs"),
    [
        ({"embedding__fake_dimension": NEW}, rf"\(dimension {OLD} there, {NEW} here\)"),
        ({"embedding__document_prompt": "page: "}, r"\(document_prompt None there, 'page: ' here\)"),
        ({"embedding__backend": "torch"}, r"'fake' there, 'all-MiniLM-L6-v2' here, backend"),
    ],
    ids=["dimension", "prompt", "backend"],
)
def test_another_model_is_refused_and_both_ways_on_are_told(
    store: Path, settings: dict[str, Any], differs: str
) -> None:
    before = StoreFolder(store).manifest.read_bytes()
    with pytest.raises(ModelMismatchError, match=differs) as caught:
        open_fake(store, **{**SETTINGS, **settings})
    assert "Set embedding.model" in str(caught.value)
    assert f"`mos-pipeline reembed --store {store}`" in str(caught.value)
    assert StoreFolder(store).manifest.read_bytes() == before
    with open_fake(store, embedding__query_prompt="ask: ", **SETTINGS) as memory:  # no vector is made with it
        memory.wait_idle(IDLE_S)


def test_a_model_that_cant_be_used_costs_nothing(store: Path, told: dict[str, Any]) -> None:
    before = StoreFolder(store).manifest.read_bytes()
    with nothing_left(), pytest.raises(ModelNotFoundError):
        MemoryPipeline.open(store, embedding__model="no/such-model", reembed=True)
    assert StoreFolder(store).manifest.read_bytes() == before
    for options in ({"read_only": True}, {"workers": False}):
        with pytest.raises(InputError, match="leave out reembed"):
            open_fake(store, reembed=True, **options, **CHANGED)
    with open_fake(store, **SETTINGS) as memory:
        assert derived(settled(memory)) == told


def test_a_model_that_cant_be_loaded_costs_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = StoreFolder(store).manifest.read_bytes()
    monkeypatch.setattr(embedding, "EmbedStage", BrokenEmbedStage)
    with nothing_left(), pytest.raises(WorkerError, match=BROKEN):
        open_fake(store, reembed=True, **CHANGED)
    assert StoreFolder(store).manifest.read_bytes() == before


# Made again


def test_every_vector_is_made_again_and_nothing_else_changes(store: Path, told: dict[str, Any]) -> None:
    with nothing_left(), open_fake(store, reembed=True, **SLOW) as memory:
        until(lambda: memory.stats().restored, "it is read")
        assert memory.stats().unlifted > len(told["pages"])
        assert memory.stats().backlog_bytes == 0, "what was there before is nothing that add would wait for"
        check_vectors(settled(memory), NEW)
        check_consistent(memory)
        assert derived(memory) == told
        for page in told["pages"]:
            hit = ask(memory, page).pages[0]
            assert hit.page == page
            assert hit.dense is not None
    assert verify_store(store).ok
    with open_fake(store, workers=False, **CHANGED) as memory:  # all of it was written: nobody makes anything here
        until(lambda: memory.stats().restored, "it is read")
        check_vectors(memory, NEW)
    before = StoreFolder(store).manifest.read_bytes()
    with open_fake(store, reembed=True, **CHANGED) as memory:  # there is nothing to do any more
        check_vectors(settled(memory), NEW)
    assert StoreFolder(store).manifest.read_bytes() == before
    with pytest.raises(ModelMismatchError, match=f"dimension {NEW} there, {OLD} here"):
        open_fake(store, **SETTINGS)


def test_old_vectors_are_gone_from_the_disk_after_compaction(store: Path, told: dict[str, Any]) -> None:
    kinds = (FrameKind.VECTORS, FrameKind.EVENTS, FrameKind.STATE)
    assert {frame.generation for kind in kinds for _, frame in frames_of(store, kind)} == {0}
    with open_fake(store, reembed=True, **CHANGED) as memory:
        settled(memory)
        memory.compact(IDLE_S)
    present = Manifest.load(StoreFolder(store)).vector_generation
    assert {frame.generation for kind in kinds for _, frame in frames_of(store, kind)} == {present}
    frames = [decode_vectors(frame.body) for _, frame in frames_of(store, FrameKind.VECTORS)]
    assert sorted(seq for frame in frames for seq in frame.seqs.tolist()) == list(range(len(told["pages"])))
    assert {frame.vectors.shape[1] for frame in frames} == {NEW}
    with open_fake(store, **CHANGED) as memory:
        check_vectors(settled(memory), NEW)
        assert derived(memory) == told


def test_compaction_in_the_midst_loses_nothing(store: Path, told: dict[str, Any]) -> None:
    with open_fake(store, reembed=True, **SLOW) as memory:
        until(lambda: memory.stats().restored, "it is read")
        memory.compact(IDLE_S)
        assert memory.stats().unlifted > 0
    with open_fake(store, **SLOW) as memory:
        until(lambda: memory.stats().restored, "it is read")
        assert memory.stats().unlifted > 0
        assert memory.stats().backlog_bytes == 0, "it is known which pages had a vector"
        check_vectors(settled(memory), NEW)
        assert derived(memory) == told


def test_back_and_forth_vectors_of_two_models_are_never_taken_for_one_anothers(store: Path) -> None:
    for prompt in ("page: ", "", "text: ", ""):  # the dimension stays: nothing but the generation tells them apart
        settings = {**SETTINGS, "embedding__document_prompt": prompt}
        with open_fake(store, reembed=True, **{**settings, "embedding__fake_ms_per_text": 20.0}) as memory:
            fill(memory, "dan", range(1))  # broken off in the midst
            until(lambda: memory.stats().restored, "it is read")
        with open_fake(store, **settings) as memory:
            assert memory.stats().pages > 0
            check_vectors(settled(memory), OLD, prompt)
            check_consistent(memory)
    assert Manifest.load(StoreFolder(store)).vector_generation == 4


def test_facts_as_they_stand_are_not_entered_again(tmp_path: Path) -> None:
    few = {**SETTINGS, "long_term__merge_cosine": 0.9}
    with open_fake(tmp_path, embedding__fake_dimension=8, **few) as memory:  # in which much is nearly the same
        for number in range(12):
            fact = f"I have a cousin named cousin{number}."
            memory.add("eve", fact, "", metadata={"mos_pipeline.states": "user"})
            settled(memory)
        before = memory.knowledge("eve", about="user")
        assert len(before) < 12, "some were merged, as another model would not"
    with open_fake(tmp_path, reembed=True, embedding__fake_dimension=NEW, **few) as memory:
        assert settled(memory).knowledge("eve", about="user") == before
        memory.add("eve", "I have a cousin named Zed.", "", metadata={"mos_pipeline.states": "user"})
        assert len(settled(memory).knowledge("eve", about="user")) == len(before) + 1


def test_forgetting_goes_on_meanwhile(store: Path) -> None:
    with open_fake(store, reembed=True, **SLOW) as memory:
        memory.forget("ann")
        gone = memory.sessions("ben")[0]
        memory.forget("ben", session_id=gone.session_id)
        settled(memory)
        assert not memory.pages("ann")
        assert not {page.page_id for page in all_pages(memory, "ben")} & set(gone.page_ids)
        check_consistent(memory)
        assert memory.stats().unlifted == 0


# While it serves


def test_every_page_is_found_at_every_moment(store: Path, told: dict[str, Any]) -> None:
    with open_fake(store, reembed=True, **SLOW) as memory:
        until(lambda: memory.stats().restored, "it is read")
        moments, by_vector, pages = set[int](), set[bool](), cycle(told["pages"])
        while left := memory.stats().unlifted:
            moments.add(left)
            page = next(pages)
            hit = ask(memory, page, timeout=0.5).pages[0]
            assert hit.page == page
            by_vector.add(hit.dense is not None)
        assert len(moments) > 3, "it was looked at while vectors were made"
        assert by_vector == {True, False}
        hits = [ask(memory, page).pages[0] for page in told["pages"]]
        assert [hit.page for hit in hits] == told["pages"]
        assert all(hit.dense is not None for hit in hits)


def test_new_pages_go_before_old_ones(store: Path, told: dict[str, Any]) -> None:
    slower = {**SLOW, "embedding__in_flight_texts": 8, "embedding__fake_ms_per_text": 60.0}  # than a busy machine
    with open_fake(store, reembed=True, **slower) as memory:
        until(lambda: memory.stats().workers["embedder"].state == "ready", "the model is loaded")
        fresh = fill(memory, "ann", range(LATER, LATER + 5))  # with the one before them, whole batches
        fresh += fill(memory, "new", range(LATER + 5, LATER + 11))
        placed = until_placed(memory, set(fresh))
        assert placed > len(told["pages"]) // 2, "most old pages had still to wait"
        settled(memory)
        check_vectors(memory, NEW)
        check_consistent(memory)
        kept = [page for page in all_pages(memory) if page.page_id not in fresh]
        assert kept == told["pages"]
        for user in ("ben", "cem"):
            assert derived(memory)[user] == told[user]


def until_placed(memory: MemoryPipeline, page_ids: set[str]) -> int:
    """Wait until pages are in sessions, and return how many vectors have still to be made then."""

    def placed() -> bool:
        sessions = [session for user in ("ann", "new") for session in memory.sessions(user, limit=1000)]
        return page_ids <= {page_id for session in sessions for page_id in session.page_ids}

    until(placed, "new pages are in mid-term memory")
    return memory.stats().unlifted


def test_what_comes_meanwhile_is_placed_as_it_would_be_afterwards(store: Path, tmp_path: Path) -> None:
    """Told in chains and sessions: nothing new is compared with what has no vector yet."""
    control = Path(shutil.copytree(store, tmp_path / "control"))
    with open_fake(control, reembed=True, **CHANGED) as memory:
        settled(memory)
    found = []
    for path, settings in ((control, CHANGED), (store, {**SLOW, "embedding__in_flight_texts": 8, "reembed": True})):
        with open_fake(path, **settings) as memory:
            for user, numbers in USERS.items():  # what was said once is said again
                fill(memory, user, numbers)
            settled(memory)
            check_vectors(memory, NEW)
            chains = memory._engine.state.chains
            found.append((derived(memory), [chains.before(seq) for seq in range(memory.stats().pages)]))
    told, links = zip(*found, strict=True)
    assert told[0]["pages"] == told[1]["pages"]
    assert links[0] == links[1]
    for user in USERS:  # when which pages are promoted depends on what comes when
        assert told[0][user][0] == told[1][user][0]


def test_a_generation_that_frames_have_is_not_given_again(store: Path) -> None:
    folder = StoreFolder(store)
    replace(Manifest.load(folder), vector_generation=255).save(folder)
    with open_fake(store, **SETTINGS) as memory:
        until(lambda: memory.stats().unlifted > 0, "it is read: the frames have 0")
        check_vectors(settled(memory), OLD)
    with open_fake(store, reembed=True, **CHANGED) as memory:
        check_vectors(settled(memory), NEW)
    assert Manifest.load(folder).vector_generation == 1


def test_a_backup_in_the_midst_goes_on_by_itself(store: Path, told: dict[str, Any], tmp_path: Path) -> None:
    with open_fake(store, reembed=True, **SLOW) as memory:
        until(lambda: memory.stats().restored, "it is read")
        memory.backup(tmp_path / "copy")
        assert memory.stats().unlifted > 0
        assert memory.verify().ok
    with open_fake(tmp_path / "copy", **CHANGED) as memory:
        check_vectors(settled(memory), NEW)
        assert derived(memory) == told


# Killed

PROGRAM = """
import json, sys, time
from pathlib import Path
from tests.support import open_fake
with open_fake(Path(sys.argv[1]), reembed=True, **json.loads(sys.argv[2])) as memory:
    print("open", flush=True)
    time.sleep(3600)
"""


@contextmanager
def lifting(store: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has the store's vectors made again."""
    command = [sys.executable, "-c", PROGRAM, str(store), json.dumps(SLOW)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [None, 0.0, 0.15, 0.4, 0.8, 1.3])
def test_killed_at_any_moment_it_goes_on(store: Path, told: dict[str, Any], after_s: float | None) -> None:
    with lifting(store) as process:
        if after_s is None:  # while the model is loaded, before or after MANIFEST is replaced
            time.sleep(0.9)
        else:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
    begun = Manifest.load(StoreFolder(store)).vector_generation
    assert after_s is None or begun
    with open_fake(store, **(CHANGED if begun else SETTINGS)) as memory:
        if not begun:
            return
        check_vectors(settled(memory), NEW)
        check_consistent(memory)
        assert derived(memory) == told
        assert memory.verify().ok
    with pytest.raises(ModelMismatchError):
        open_fake(store, **SETTINGS)


@pytest.mark.slow
def test_an_embedder_that_is_killed_meanwhile_costs_nothing(store: Path, told: dict[str, Any]) -> None:
    with open_fake(store, reembed=True, **SLOW) as memory:
        for _ in range(3):
            until(lambda: memory.stats().workers["embedder"].state == "ready", "the model is loaded")
            assert memory.stats().unlifted > 0
            os.kill(memory.stats().workers["embedder"].pids[0], signal.SIGKILL)
            time.sleep(0.3)
        check_vectors(settled(memory), NEW)
        assert derived(memory) == told


@pytest.mark.slow
def test_what_kills_the_embedder_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = f"I have a {POISON} in my garden."
    with open_fake(tmp_path, **SETTINGS) as memory:
        for number in range(12):
            said = f"{told if number == 4 else 'I like it.'} {page_text(number)[0]}"
            memory.add("tom", said, "I see.", page_id=f"page {number}")
        before = derived(settled(memory))
        assert any(POISON in fact.text for fact in memory.knowledge("tom", about="user"))
    monkeypatch.setattr(embedding, "EmbedStage", PoisonedEmbedStage)
    with open_fake(tmp_path, reembed=True, **CHANGED) as memory:
        stats = settled(memory).stats()
        assert list(stats.set_aside) == ["page 4"]
        assert 1 <= stats.unlifted <= 2, "the fact, and the summary where it tells of that, too"
        assert derived(memory) == before
        hit = memory.retrieve("tom", "number4", k=1).pages[0]
        assert (hit.page.page_id, hit.dense) == ("page 4", None)
        assert memory.retrieve("tom", "number5", k=1).pages[0].dense is not None
        memory.add("tom", *page_text(12))
        memory.wait_idle(IDLE_S)  # nothing waits for what can't be
    monkeypatch.undo()
    with open_fake(tmp_path, **CHANGED) as memory:
        memory.wait_idle(IDLE_S)
        assert memory.retry() == 1
        check_vectors(settled(memory), NEW)


# Readers


def test_a_reader_with_the_old_model_answers_by_words(
    store: Path, told: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with open_fake(store, read_only=True, **SETTINGS) as reader:
        page = told["pages"][3]
        assert not ask(reader, page).degraded
        with open_fake(store, reembed=True, **SLOW) as memory:
            assert not ask(reader, page).degraded, "it sees what was, until it looks again"
            until(lambda: memory.stats().restored, "it is read")
            while memory.stats().unlifted:
                reader.refresh()
                found = ask(reader, page)
                assert found.degraded
                assert found.pages[0].page == page
                assert found.pages[0].dense is None
                assert reader.stats().model["dimension"] == NEW
            settled(memory)
        reader.refresh()
        assert ask(reader, page).degraded
        assert derived(reader) == told
    assert "by words alone from now on" in caplog.text


@pytest.mark.parametrize("prompt", ["", "page: "], ids=["another dimension", "the same dimension"])
def test_a_reader_with_the_new_model_follows(store: Path, told: dict[str, Any], prompt: str) -> None:
    settings = {**SETTINGS, "embedding__document_prompt": prompt}
    settings |= {} if prompt else {"embedding__fake_dimension": NEW}
    dimension = OLD if prompt else NEW
    with ExitStack() as opened:
        with open_fake(store, **SETTINGS) as owner:
            settled(owner)
            reader = opened.enter_context(open_fake(store, read_only=True, **settings))
            assert reader.stats().vectors > 0, "it has attached the old owner's vectors"
            assert ask(reader, told["pages"][0]).degraded, "the store's model is the old one still"
        with open_fake(store, reembed=True, **{**settings, "embedding__fake_ms_per_text": 40.0}) as memory:
            until(lambda: memory.stats().restored, "it is read")
            seen = set[bool]()
            while memory.stats().unlifted:
                time.sleep(0.05)
                reader.refresh()
                for page in told["pages"][::7]:
                    found = ask(reader, page)
                    assert found.pages[0].page == page
                    assert not found.degraded
                    seen.add(found.pages[0].dense is not None)
                    check_dense(found, page, dimension, prompt)
            assert seen == {True, False}
            settled(memory)
            reader.refresh()
            assert reader.stats().unlifted == 0
            for page in told["pages"]:
                check_dense(ask(reader, page), page, dimension, prompt)
        assert derived(reader) == told


def check_dense(found: Retrieved, page: Page, dimension: int, prompt: str) -> None:
    """Check a hit's cosine, where it has one, against the vectors of the new model."""
    hit = found.pages[0]
    if hit.dense is not None:
        query = expected(own_word(page), dimension).astype(np.float32)
        vector = expected(embedded_text(page.user_input, page.agent_response), dimension, prompt)
        assert hit.dense == pytest.approx(float(query @ vector.astype(np.float32)), abs=0.01)


# A real model


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_from_one_real_model_to_another(tmp_path: Path) -> None:
    one = make_bert(tmp_path / "one", hidden=32)
    other = make_bert(
        tmp_path / "other", hidden=24, dense=20, seed=1, prompts={"query": "query: ", "document": "user "}
    )
    store, settings = tmp_path / "store", {**SETTINGS, "embedding__slab_bytes": 65536}
    with MemoryPipeline.open(store, embedding__model=str(one), **settings) as memory:
        fill(memory, "ann", range(30))
        told = derived(settled(memory))
        assert memory.stats().model["dimension"] == 32
    moved = Path(shutil.copytree(one, tmp_path / "moved"))
    MemoryPipeline.open(store, embedding__model=str(moved), **settings).close()  # the same elsewhere
    with pytest.raises(ModelMismatchError, match="'one' there, 'other' here"):
        MemoryPipeline.open(store, embedding__model=str(other), **settings)
    with MemoryPipeline.open(store, embedding__model=str(other), reembed=True, **settings) as memory:
        for page in told["pages"]:
            assert ask(memory, page, timeout=0.2).pages[0].page == page
        settled(memory)
        stats = memory.stats()
        assert (stats.model["dimension"], stats.model["document_prompt"], stats.unlifted) == (20, "user ", 0)
        assert derived(memory) == told
        assert ask(memory, told["pages"][5]).pages[0].dense is not None
    with pytest.raises(ModelMismatchError, match="document_prompt 'user ' there, 'assistant ' here"):
        MemoryPipeline.open(store, embedding__model=str(other), embedding__document_prompt="assistant ", **settings)
