"""The library through its face, with the fake model and real processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import stat
import subprocess
import sys
import textwrap
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import mos_pipeline
from mos_pipeline import (
    BackpressureError,
    ClosedError,
    ConfigError,
    InputError,
    MemoryPipeline,
    ModelMismatchError,
    ModelNotFoundError,
    Page,
    StoreLockedError,
)
from mos_pipeline.engine.engine import Engine
from mos_pipeline.memory.pages import PageTable
from mos_pipeline.messages import SourceMark
from tests.faults.common import until
from tests.support import all_pages, open_fake, page_text

IDLE_S = 60.0
EXAMPLE = textwrap.dedent(
    """
    from mos_pipeline import MemoryPipeline
    with MemoryPipeline.open("memory/", embedding__backend="fake") as memory:
        page_id = memory.add("tom", "I adopted a beagle named Rex.", "Lovely! How old is he?",
                             timestamp="2026-03-01 10:00:00", metadata={"channel": "web"})
        memory.wait_idle(timeout=60)
        found = memory.retrieve("tom", "which beagle?", k=7)
        for hit in found.pages: print(hit.score, hit.page.user_input)
    """
)


def fill(memory: MemoryPipeline, user_id: str, numbers: range) -> list[str]:
    return [memory.add(user_id, *page_text(number), metadata={"number": number}) for number in numbers]


def test_a_page_is_found_by_its_words_and_its_vector(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        page_id = memory.add("tom", "I adopted a beagle named Rex.", "Lovely!", timestamp="2026-03-01 10:00:00")
        fill(memory, "tom", range(20))
        memory.wait_idle(IDLE_S)
        found = memory.retrieve("tom", "the beagle Rex", k=3)
        assert found.pages[0].page == Page(
            page_id,
            "tom",
            "default_assistant_profile",
            "I adopted a beagle named Rex.",
            "Lovely!",
            "2026-03-01 10:00:00",
            {},
        )
        assert found.pages[0].dense is not None
        assert found.pages[0].words > 0
        assert len(found.pages) == 3
        assert not found.degraded


def test_a_page_is_found_the_moment_it_is_accepted(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        for number in range(30):
            page_id = memory.add("tom", *page_text(number))
            found = memory.retrieve("tom", f"number{number}", k=1, timeout=5)
            assert found.pages[0].page.page_id == page_id
            assert found.degraded


def test_short_term_holds_the_latest_pages_while_they_are_processed_too(tmp_path: Path) -> None:
    with open_fake(tmp_path, short_term__capacity=4) as memory:
        ids = fill(memory, "tom", range(11))
        before = memory.retrieve("tom", "number3").short_term
        memory.wait_idle(IDLE_S)
        after = memory.retrieve("tom", "number3").short_term
        assert [page.page_id for page in before] == [page.page_id for page in after] == ids[-4:]


def test_batches_become_sessions_and_tails_only_vectors(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        fill(memory, "tom", range(9 * 3 + 5))
        memory.wait_idle(IDLE_S)
        stats = memory.stats()
        scope = memory._engine.state.find("tom", "default_assistant_profile")
        assert scope is not None
        placed = [seq for session in scope.mid_term.sessions for seq in session.seqs]
        assert sorted(placed) == list(range(27))  # each page once, the five in the ring in none
        assert stats.backlog_pages == 0
        assert stats.vectors >= 32


def test_every_page_comes_back_after_reopening(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        ids = fill(memory, "tom", range(50)) + fill(memory, "ann", range(50, 70))
        pages = all_pages(memory)
        memory.wait_idle(IDLE_S)
        sessions = memory.stats().sessions
        best = memory.retrieve("tom", "number17 violin", k=5).pages
    with open_fake(tmp_path) as memory:
        assert all_pages(memory) == pages
        assert [page.page_id for page in pages] == ids
        assert memory.users() == ["tom", "ann"]
        memory.wait_idle(IDLE_S)
        assert memory.retrieve("tom", "number17 violin", k=5).pages == best
        assert memory.stats().sessions == sessions
        assert memory.verify().ok


def test_work_goes_on_where_close_stopped_it(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        fill(memory, "tom", range(300))
    with open_fake(tmp_path) as memory:
        fill(memory, "tom", range(300, 310))
        memory.wait_idle(IDLE_S)
        assert memory.stats().backlog_pages == 0
        assert [page.metadata["number"] for page in all_pages(memory, "tom")] == list(range(310))
        assert memory.retrieve("tom", "number299", k=1).pages[0].page.metadata["number"] == 299


def test_the_same_id_twice_is_one_page_also_after_reopening(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        assert memory.add("tom", "first", "", page_id="mine") == "mine"
        assert memory.add("tom", "second", "", page_id="mine") == "mine"
    with open_fake(tmp_path) as memory:
        memory.add("tom", "third", "", page_id="mine")
        assert [page.user_input for page in all_pages(memory)] == ["first"]
        found = memory.get("mine")
        assert found is not None
        assert found.user_input == "first"
        assert memory.get("yours") is None


@pytest.mark.parametrize("absorbed", [True, False])
def test_another_users_page_id_is_refused_and_nothing_is_lost(tmp_path: Path, absorbed: bool) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        memory.add("tom", "mine", "", page_id="one")
        if absorbed:
            assert memory.get("one")
        for user, assistant in (("ann", "default_assistant_profile"), ("tom", "other")):
            with pytest.raises(InputError, match="'one' is that of a page of another"):
                memory.add(user, "theirs", "", assistant_id=assistant, page_id="one")
        assert memory.add("tom", "again", "", page_id="one") == "one"
        assert [page.user_input for page in all_pages(memory)] == ["mine"]


def test_another_users_page_id_is_refused_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while its page goes from the queue into the columns."""
    with open_fake(tmp_path, workers=False) as memory:
        ids, taken, enter = memory._engine.state.ids, list[str](), PageTable.append

        def add_theirs() -> None:
            for page_id in (one for one in map(str, range(6)) if ids.resolve(one) is not None):
                with contextlib.suppress(InputError):
                    taken.append(memory.add("ann", "theirs", "", page_id=page_id))

        def entered(table: PageTable, seq: int, scope: int) -> None:
            add_theirs()
            enter(table, seq, scope)
            add_theirs()

        monkeypatch.setattr(PageTable, "append", entered)
        for number in range(6):
            memory.add("tom", "mine", "", page_id=str(number))
            if number % 2:
                memory.pages("tom")
            add_theirs()
        assert [page.user_id for page in all_pages(memory)] == ["tom"] * 6
        monkeypatch.undo()
        assert not taken


def test_users_and_assistants_see_their_own_pages_only(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        memory.add("tom", "the secret word is velvet", "", assistant_id="a")
        memory.add("tom", "velvet again", "", assistant_id="b")
        memory.add("ann", "velvet for ann", "")
        memory.wait_idle(IDLE_S)
        for user, assistant, expected in (("tom", "a", 1), ("tom", "b", 1), ("ann", "a", 0), ("zoe", "a", 0)):
            found = memory.retrieve(user, "velvet", assistant_id=assistant)
            assert len(found.pages) == len(found.short_term) == expected
            assert all((hit.page.user_id, hit.page.assistant_id) == (user, assistant) for hit in found.pages)


def test_add_many_reads_lazily_and_names_the_item_that_is_wrong(tmp_path: Path) -> None:
    taken: list[object] = []

    def items() -> Any:
        for number in range(5):
            taken.append(number)
            yield {"user_id": "tom", "user_input": f"number{number}", "agent_response": ""}
        yield {"user_id": "tom", "user_input": 5, "agent_response": ""}
        taken.append("too far")

    with open_fake(tmp_path, workers=False) as memory:
        with pytest.raises(InputError, match="item 5: user_input must be a string, found int"):
            memory.add_many(items())
        assert taken == list(range(5))
        assert len(all_pages(memory)) == 5
        assert memory.add_many([Page("an-id", "tom", "x", "said", "", "never", {})]) == 1


def test_adds_from_many_threads_keep_each_threads_order(tmp_path: Path) -> None:
    with open_fake(tmp_path, llm__processes=2) as memory:
        threads = [threading.Thread(target=fill, args=(memory, f"user{n}", range(200))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        memory.wait_idle(IDLE_S)
        assert memory.stats().pages == 1600
        for n in range(8):
            assert [page.metadata["number"] for page in all_pages(memory, f"user{n}")] == list(range(200))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user_id": ""}, "user_id must be a string that is not empty"),
        ({"user_id": 7}, "user_id must be a string"),
        ({"user_input": None}, "user_input must be a string, found NoneType"),
        ({"agent_response": b"x"}, "agent_response must be a string, found bytes"),
        ({"timestamp": 3}, "timestamp must be a string"),
        ({"metadata": [1]}, "metadata must be a mapping"),
        ({"metadata": {1: 2}}, "metadata must be a mapping with string keys"),
        ({"metadata": {"x": object()}}, "can't be stored"),
        ({"metadata": {"x": 1 << 70}}, "can't be stored"),
        ({"page_id": ""}, "page_id must be a string"),
    ],
)
def test_a_bad_argument_is_refused_and_nothing_is_stored(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        with pytest.raises(InputError, match=message):
            memory.add(**{"user_id": "tom", "user_input": "", "agent_response": "", **arguments})
        memory.add("tom", "good", "one")
        assert [page.user_input for page in all_pages(memory)] == ["good"]


def test_odd_texts_and_ids_come_back_as_they_were(tmp_path: Path) -> None:
    texts = ["", "\0", "🐕‍🦺", "\ud800 lone", "שלום", "e\u0301", "../../etc/passwd\n", "x" * 100_000]
    with open_fake(tmp_path) as memory:
        for text in texts:
            memory.add(text or "-", text, text, timestamp=text, metadata={text: text})
        memory.wait_idle(IDLE_S)
    with open_fake(tmp_path, workers=False) as memory:
        assert [page.user_input for page in all_pages(memory)] == texts
        assert [page.metadata for page in all_pages(memory)] == [{text: text} for text in texts]
        assert memory.retrieve("../../etc/passwd\n", "passwd", timeout=5).pages[0].words > 0


def test_a_timestamp_is_kept_and_made_where_there_is_none(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        memory.add("tom", "a", "", timestamp=datetime(2026, 3, 1, 10, 0, 5))
        memory.add("tom", "b", "")
        first, second = all_pages(memory)
        assert first.timestamp == "2026-03-01 10:00:05"
        assert datetime.strptime(second.timestamp, "%Y-%m-%d %H:%M:%S%z").year >= 2026


@pytest.mark.parametrize("arguments", [{"k": 0}, {"k": -1}, {"k": 2.5}, {"k": True}, {"query": 7}, {"user_id": ""}])
def test_a_bad_question_is_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        memory.add("tom", "velvet", "violin")
        with pytest.raises(InputError):
            memory.retrieve(**{"user_id": "tom", "query": "velvet", **arguments})
        assert memory.retrieve("tom", "", timeout=5).pages == []
        assert len(memory.retrieve("tom", "velvet", k=10**9, timeout=5).pages) == 1


def test_a_second_owner_is_refused_and_told_the_first(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False):
        with pytest.raises(StoreLockedError) as caught:
            open_fake(tmp_path, workers=False)
        assert caught.value.pid == os.getpid()
    open_fake(tmp_path, workers=False).close()


def test_another_model_is_refused(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        fill(memory, "tom", range(9))
        memory.wait_idle(IDLE_S)
    with pytest.raises(ModelMismatchError, match="fake"):
        MemoryPipeline.open(tmp_path, embedding__backend="torch")
    open_fake(tmp_path, workers=False).close()


def test_what_the_embedder_says_counts_only_where_its_model_is_the_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_fake(tmp_path) as memory:
        fill(memory, "tom", range(9))
        memory.wait_idle(IDLE_S)
    monkeypatch.setattr(Engine, "_check_model", lambda _, identity: identity.update(digest="of other weights"))
    with open_fake(tmp_path) as memory:
        fill(memory, "tom", range(9, 10))
        with pytest.raises(ModelMismatchError, match="digest 'of other weights' there"):
            memory.wait_idle(IDLE_S)
        found = memory.retrieve("tom", "number3", k=9, timeout=IDLE_S)
        assert found.degraded
        assert found.pages[0].page.metadata["number"] == 3
        assert all(hit.dense is None for hit in found.pages)


def test_a_missing_model_is_told_and_pages_are_kept(tmp_path: Path) -> None:
    with MemoryPipeline.open(tmp_path, embedding__model="no/such-model") as memory:
        page_id = memory.add("tom", "kept all the same", "")
        with pytest.raises(mos_pipeline.ModelNotFoundError, match="no/such-model"):
            memory.wait_idle(IDLE_S)
        found = memory.retrieve("tom", "kept", timeout=1)
        assert found.pages[0].page.page_id == page_id
        assert found.degraded
        assert memory.stats().workers["embedder"].state == "failed"


def test_questions_that_nobody_waits_for_any_more_are_withdrawn(tmp_path: Path) -> None:
    with MemoryPipeline.open(tmp_path) as memory:  # the real model, which takes seconds to load
        memory.add("tom", "velvet violin", "")
        for _ in range(20):
            assert memory.retrieve("tom", "velvet", timeout=0.001).degraded
        assert memory.stats().workers["embedder"].waiting == 0


def test_nothing_works_after_close_and_closing_twice_is_fine(tmp_path: Path) -> None:
    memory = open_fake(tmp_path, workers=False)
    memory.close()
    memory.close()
    for call in (lambda: memory.add("tom", "a", "b"), lambda: memory.retrieve("tom", "a"), memory.users, memory.stats):
        with pytest.raises(ClosedError, match="open the store again"):
            call()


def test_close_from_another_thread_while_pages_are_added_loses_none(tmp_path: Path) -> None:
    accepted: list[str] = []
    memory = open_fake(tmp_path)

    def add_until_closed() -> None:
        for number in range(100_000):
            try:
                accepted.append(memory.add("tom", *page_text(number)))
            except ClosedError:
                return

    adder = threading.Thread(target=add_until_closed)
    adder.start()
    while len(accepted) < 500:
        adder.join(0.001)
    memory.close()
    adder.join()
    with open_fake(tmp_path, workers=False) as memory:
        assert [page.page_id for page in all_pages(memory)] == accepted


def _use_in_child(memory: MemoryPipeline, result: Any) -> None:
    try:
        memory.add("tom", "from a child", "")
    except ClosedError as error:
        result.send(str(error))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        child = context.Process(target=_use_in_child, args=(memory, theirs))
        child.start()
        assert ours.poll(20)
        assert "forked child" in ours.recv()
        child.join()
        ours.close()
        theirs.close()


def test_folders_and_files_are_private(tmp_path: Path) -> None:
    with open_fake(tmp_path / "store") as memory:
        fill(memory, "tom", range(20))
        memory.wait_idle(IDLE_S)
        for path in [tmp_path / "store", *(tmp_path / "store").rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_power_durability_keeps_and_finds_pages(tmp_path: Path) -> None:
    with open_fake(tmp_path, store__durability="power") as memory:
        ids = fill(memory, "tom", range(30))
        memory.flush()
        memory.wait_idle(IDLE_S)
        assert [page.page_id for page in all_pages(memory)] == ids


def test_the_high_water_mark_refuses_or_waits(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False, backlog__max_bytes=2000, backlog__policy="raise") as memory:
        with pytest.raises(BackpressureError, match="2000 bytes"):
            fill(memory, "tom", range(1000))
        kept = len(all_pages(memory))
    with open_fake(tmp_path, backlog__max_bytes=2000) as memory:  # policy block: the embedder makes room
        fill(memory, "tom", range(kept, kept + 100))
        memory.wait_idle(IDLE_S)
        assert [page.metadata["number"] for page in all_pages(memory)] == list(range(kept + 100))


def test_a_setting_may_come_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.yaml").write_text("short_term: {capacity: 3}\nembedding: {backend: fake}\n")
    with MemoryPipeline.open(tmp_path / "a", config=tmp_path / "c.yaml", workers=False) as memory:
        ids = fill(memory, "tom", range(5))
        assert [p.page_id for p in memory.retrieve("tom", "x", timeout=5).short_term] == ids[-3:]
    monkeypatch.setenv("MOS_PIPELINE_SHORT_TERM__CAPACITY", "2")
    with MemoryPipeline.open(tmp_path / "a", config=tmp_path / "c.yaml", workers=False) as memory:
        assert len(memory.retrieve("tom", "x", timeout=5).short_term) == 2
    with pytest.raises(ConfigError, match=r"short_term\.capacity"):
        MemoryPipeline.open(tmp_path / "b", short_term__capacty=3)


def run_example(tmp_path: Path, *command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(mos_pipeline.__file__).parents[1]), "PYTHONWARNINGS": "error"}
    if "-W" in command:
        environment.pop("PYTHONWARNINGS")
    return subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_the_readmes_example_runs_unguarded_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text("print('once')\n" + EXAMPLE)
    result = run_example(tmp_path, "example.py")
    assert result.stdout.count("once") == 1
    assert "I adopted a beagle named Rex." in result.stdout
    assert result.stderr == ""


def test_the_readmes_example_runs_from_stdin(tmp_path: Path) -> None:
    result = run_example(tmp_path, "-", text=EXAMPLE)
    assert "I adopted a beagle named Rex." in result.stdout
    assert result.stderr == ""


NOTEBOOK = """
import nbformat
from nbclient import NotebookClient
cell = nbformat.v4.new_code_cell({source!r})
NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=100).execute()
print("".join(output.get("text", "") for output in cell.outputs))
"""


@pytest.mark.slow
def test_the_readmes_example_runs_in_a_notebook(tmp_path: Path) -> None:
    script = NOTEBOOK.format(source=EXAMPLE)
    # Jupyter's own packages warn of each other; what our code warns of is told by the tests above.
    result = run_example(tmp_path, "-W", "ignore", "-c", script)
    assert "I adopted a beagle named Rex." in result.stdout


def test_leaving_without_close_is_clean(tmp_path: Path) -> None:
    script = EXAMPLE.replace("with MemoryPipeline.open(", "memory = MemoryPipeline.open(")
    script = script.replace(") as memory:", ")").replace("\n    ", "\n")
    result = run_example(tmp_path, "-c", script)
    assert result.stderr == ""
    with open_fake(tmp_path / "memory", workers=False) as memory:
        assert len(all_pages(memory)) == 1


@pytest.mark.parametrize(
    "metadata",
    [{"a": {(1, 2): 3}}, {"a": [{"b": ({(): 1},)}]}, {"a": {1, 2}}, {"a": 1 << 70}],
)
def test_metadata_that_could_not_be_read_back_is_refused(tmp_path: Path, metadata: dict[str, Any]) -> None:
    with open_fake(tmp_path) as memory:
        with pytest.raises(InputError, match="metadata of a page of user 'tom' can't be stored"):
            memory.add("tom", "hello", "", metadata=metadata)
        memory.add("tom", "hello", "", metadata={"deep": {1: [{None: {"x": b"y"}}]}})
        memory.wait_idle(IDLE_S)
    with open_fake(tmp_path, workers=False) as memory:
        assert [page.metadata for page in all_pages(memory)] == [{"deep": {1: [{None: {"x": b"y"}}]}}]


BAD_SOURCES: list[Any] = [(b"digest", 3), ("digest", 3), (b"digest", -1), (b"digest", True)]


@pytest.mark.parametrize("source", [BAD_SOURCES[0], *(SourceMark(*bad) for bad in BAD_SOURCES[1:])])
def test_a_source_that_is_none_is_refused_and_nothing_kept(tmp_path: Path, source: Any) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        with pytest.raises(InputError, match="source must be a SourceMark"):
            memory.add("tom", "hello", "", source=source)
        assert memory.stats().pages == 0


def test_retrieve_beside_adds_of_the_same_user(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        memory.add("tom", "the first", "")
        stop = threading.Event()

        def add() -> None:
            while not stop.wait(0.0005):
                memory.add("tom", "another", "")

        thread = threading.Thread(target=add)
        thread.start()
        try:
            for _ in range(150):
                assert memory.retrieve("tom", "first", k=1, timeout=5).short_term
        finally:
            stop.set()
            thread.join()


def test_flush_needs_no_embedder(tmp_path: Path) -> None:
    with open_fake(tmp_path / "one", workers=False) as memory:
        memory.add("tom", "hello", "")
        memory.flush()  # to the journal
        assert memory.stats().pages == 1
    with MemoryPipeline.open(tmp_path / "other", embedding__model="/nowhere", store__flush_interval_s=3600.0) as memory:
        memory.add("tom", "hello again", "")
        with pytest.raises(ModelNotFoundError):
            memory.wait_idle(IDLE_S)
        assert not memory.verify().frames["pages"]
        memory.flush(timeout=IDLE_S)
        assert memory.verify().frames["pages"]


def test_a_second_close_returns_when_it_is_closed(tmp_path: Path) -> None:
    memory = open_fake(tmp_path)
    memory.add("tom", "hello", "")
    threads = [threading.Thread(target=memory.close) for _ in range(3)]
    for thread in threads:
        thread.start()
    memory.close()
    with open_fake(tmp_path, workers=False) as again:  # the lock is free
        assert again.stats().pages == 1
    for thread in threads:
        thread.join()


def test_a_process_loads_what_its_role_needs(tmp_path: Path) -> None:
    """Every opening starts them all: what one imports needlessly is paid for by each."""
    with open_fake(tmp_path) as memory:
        until(lambda: all(role.state == "ready" for role in memory.stats().workers.values()), "all are ready")
        pids = {role: worker.pids for role, worker in memory.stats().workers.items()}
        mapped = {role: Path(f"/proc/{pid}/maps").read_text() for role, (pid,) in pids.items()}
        assert {role for role, files in mapped.items() if "msgpack" in files} == {"writer", "embedder", "llm"}
        assert {role for role, files in mapped.items() if "numpy" in files} == {"embedder"}
