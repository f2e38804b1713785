"""``Memoryos`` as the original's callers use it."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import ClosedError, ConfigError, InputError, Memoryos, MemoryPipeline, StoreError, StoreLockedError
from mos_pipeline.memoryos import shared
from tests.cli.common import REPO, environment
from tests.faults.common import PATIENCE_S

README = (REPO / "README.md").read_text()
FAKE = {"embedding.backend": "fake", "llm.processes": 1, "runtime": {"restart_backoff_s": 0.01}}
BEAGLE, BANKER = "I adopted a beagle named Rex.", "I work as a banker in Vienna."
GHENT = "I am from Ghent, in Belgium."
PAGE_KEYS = (
    "page_id user_input agent_response timestamp preloaded analyzed pre_page next_page meta_info page_embedding "
    "page_keywords"
)
SESSION_KEYS = (
    "id summary summary_keywords summary_embedding details L_interaction R_recency N_visit H_segment timestamp "
    "last_visit_time access_count_lfu"
)


def opened(path: Path, user: str = "tom", **arguments: Any) -> Memoryos:
    config = {**FAKE, **arguments.pop("config", {})}
    return Memoryos(user, "", path, **{"short_term_capacity": 3, **arguments}, config=config)


@pytest.fixture
def memo(tmp_path: Path) -> Iterator[Memoryos]:
    with opened(tmp_path / "data") as memo:
        yield memo


def fill(memo: Memoryos) -> None:
    for number in range(3):
        memo.add_memory(BEAGLE, GHENT, f"2026-03-0{number + 1} 10:00:00")
        memo.add_memory(BANKER, "Vienna is lovely.", f"2026-03-0{number + 1} 11:00:00", {"channel": "web"})


def test_the_signatures_are_the_originals() -> None:
    def arguments(call: Any) -> dict[str, Any]:
        given = list(inspect.signature(call).parameters.values())
        return {one.name: one.default for one in given if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self"}

    none = inspect.Parameter.empty
    assert list(arguments(Memoryos).items()) == [
        ("user_id", none),
        ("openai_api_key", none),
        ("data_storage_path", none),
        ("openai_base_url", None),
        ("assistant_id", "default_assistant_profile"),
        ("short_term_capacity", 10),
        ("mid_term_capacity", 2000),
        ("long_term_knowledge_capacity", 100),
        ("retrieval_queue_capacity", 7),
        ("mid_term_heat_threshold", 5.0),
        ("mid_term_similarity_threshold", 0.6),
        ("llm_model", "gpt-4o-mini"),
        ("embedding_model_name", "all-MiniLM-L6-v2"),
        ("embedding_model_kwargs", None),
    ]
    assert list(arguments(Memoryos.add_memory)) == ["user_input", "agent_response", "timestamp", "meta_data"]
    assert arguments(Memoryos.get_response) == {
        "query": none,
        "relationship_with_user": "friend",
        "style_hint": "",
        "user_conversation_meta_data": None,
    }


def test_nothing_is_known_at_first(memo: Memoryos) -> None:
    assert memo.get_user_profile_summary() == "None"
    assert memo.get_assistant_knowledge_summary() == []
    assert memo.short_term_memory.get_all() == []
    assert memo.mid_term_memory.sessions == {}
    assert memo.user_long_term_memory.user_profiles == {}
    assert memo.get_memory_stats() == {
        "user_id": "tom",
        "short_term_count": 0,
        "mid_term_sessions_count": 0,
        "has_user_profile": False,
        "assistant_knowledge_count": 0,
    }
    found = memo.retriever.retrieve_context("beagle", "tom")
    assert [found[f"retrieved_{what}"] for what in ("pages", "user_knowledge", "assistant_knowledge")] == [[], [], []]
    assert time.strptime(found["retrieved_at"], "%Y-%m-%d %H:%M:%S")


def test_short_term_memory_holds_the_latest_exchanges(memo: Memoryos) -> None:
    assert memo.add_memory("a", "b") is None  # type: ignore[func-returns-value]
    (page,) = memo.short_term_memory.get_all()
    assert (page["user_input"], page["agent_response"]) == ("a", "b")
    assert time.strptime(page["timestamp"], "%Y-%m-%d %H:%M:%S")
    fill(memo)
    assert memo.short_term_memory.get_all()[1:] == [
        {"user_input": BEAGLE, "agent_response": GHENT, "timestamp": "2026-03-03 10:00:00"},
        {
            "user_input": BANKER,
            "agent_response": "Vienna is lovely.",
            "timestamp": "2026-03-03 11:00:00",
            "meta_data": {"channel": "web"},
        },
    ]
    assert memo.short_term_memory.max_capacity == 3
    memo.add_memory("only one side", "")
    assert memo.short_term_memory.get_all()[-1]["user_input"] == "only one side"


def test_what_memory_knows_in_the_originals_shapes(memo: Memoryos) -> None:
    fill(memo)
    memo.force_mid_term_analysis(PATIENCE_S)
    profile = memo.get_user_profile_summary()
    assert BEAGLE in profile
    assert memo.user_long_term_memory.user_profiles["tom"]["data"] == profile
    assert memo.user_long_term_memory.get_raw_user_profile("ann") == "None"
    sessions = memo.mid_term_memory.sessions
    assert sessions
    assert json.loads(json.dumps(sessions)) == sessions
    pages = {}
    for key, session in sessions.items():
        assert set(session) == set(SESSION_KEYS.split())
        assert session["id"] == key
        assert len(session["summary_embedding"]) == 384
        assert session["H_segment"] == pytest.approx(
            session["N_visit"] + session["L_interaction"] + session["R_recency"], abs=1e-6
        )
        assert time.strptime(session["last_visit_time"], "%Y-%m-%d %H:%M:%S")
        for page in session["details"]:
            assert set(page) - {"meta_data"} == set(PAGE_KEYS.split())
            assert len(page["page_embedding"]) == 384
            assert page["analyzed"] is True
            pages[page["page_id"]] = page
    assert len(pages) == 6
    for page in pages.values():
        if page["next_page"] is not None:
            assert pages[page["next_page"]]["pre_page"] == page["page_id"]
    assert any(page["meta_info"] for page in pages.values())
    knowledge = memo.user_long_term_memory.knowledge_base
    assert BEAGLE in [fact["knowledge"] for fact in knowledge]
    assert knowledge == memo.user_long_term_memory.get_user_knowledge()
    (fact,) = memo.get_assistant_knowledge_summary()
    assert (fact["knowledge"], fact["timestamp"], len(fact["knowledge_embedding"])) == (
        GHENT,
        "2026-03-03 10:00:00",
        384,
    )
    assert memo.assistant_long_term_memory.assistant_knowledge == [fact]
    assert memo.get_memory_stats() == {
        "user_id": "tom",
        "short_term_count": 3,
        "mid_term_sessions_count": len(sessions),
        "has_user_profile": True,
        "assistant_knowledge_count": 1,
    }


def test_what_is_retrieved_in_the_originals_shape(memo: Memoryos) -> None:
    fill(memo)
    memo.force_mid_term_analysis(PATIENCE_S)
    found = memo.retriever.retrieve_context("which beagle did I adopt?", "tom")
    assert [page["user_input"] for page in found["retrieved_pages"]][:3] == [BEAGLE] * 3
    assert set(found["retrieved_pages"][0]) == set(PAGE_KEYS.split())
    assert found["retrieved_user_knowledge"][0]["knowledge"] == BEAGLE
    assert (
        len(memo.retriever.retrieve_context("beagle banker", "tom", 0.1, 0.1, 0.01, 5, 1)["retrieved_user_knowledge"])
        == 1
    )
    assert memo.retriever.retrieve_context("beagle", "tom", knowledge_threshold=2.0)["retrieved_user_knowledge"] == []
    strict = memo.retriever.retrieve_context("beagle", "tom", page_similarity_threshold=2.0)["retrieved_pages"]
    assert {page["user_input"] for page in strict} == {BEAGLE}
    assert memo.retriever.retrieve_context("beagle", "ann")["retrieved_pages"] == []


def test_what_is_retrieved_can_be_narrowed_to_sessions(memo: Memoryos) -> None:
    fill(memo)
    memo.force_mid_term_analysis(PATIENCE_S)
    memo.add_memory("The newest of all, beagle and banker.", "I see.")
    sessions = list(memo.mid_term_memory.sessions.values())
    assert len(sessions) > 1
    by_session = [{page["page_id"] for page in session["details"]} for session in sessions]

    def found(**narrowed: Any) -> set[str]:
        memo.retriever.retrieval_queue_capacity = 20
        pages = memo.retriever.retrieve_context("which beagle did I adopt?", "tom", **narrowed)["retrieved_pages"]
        return {page["page_id"] for page in pages}

    everything = found(page_similarity_threshold=-1.0)
    newest = everything - set().union(*by_session)
    assert len(newest) == 1
    nearest = found(page_similarity_threshold=-1.0, top_k_sessions=1) - newest
    assert nearest in by_session
    assert BEAGLE in {page["user_input"] for one in sessions for page in one["details"] if page["page_id"] in nearest}
    assert found(page_similarity_threshold=-1.0, segment_similarity_threshold=1.1) == newest
    assert found(page_similarity_threshold=-1.0, top_k_sessions=0) == newest
    assert found(page_similarity_threshold=-1.0, segment_similarity_threshold=-1.0, top_k_sessions=99) == everything


def test_a_page_s_keywords_are_its_session_s_that_it_says(memo: Memoryos) -> None:
    fill(memo)
    memo.force_mid_term_analysis(PATIENCE_S)
    told = [
        (session["summary_keywords"], page["page_keywords"], f"{page['user_input']} {page['agent_response']}".lower())
        for session in memo.mid_term_memory.sessions.values()
        for page in session["details"]
    ]
    assert any(keywords for _, keywords, _ in told)
    for of_session, keywords, text in told:
        assert set(keywords) <= set(of_session)
        assert set(keywords) >= {keyword for keyword in of_session if keyword in text.replace(".", " ").split()}


def test_a_response_is_given_and_remembered(memo: Memoryos) -> None:
    fill(memo)
    answer = memo.get_response("which beagle did I adopt?", "friend", "briefly", {"channel": "app"})
    assert isinstance(answer, str)
    assert "No model writes answers here" in answer
    assert BEAGLE in answer
    latest = memo.short_term_memory.get_all()[-1]
    assert (latest["user_input"], latest["agent_response"]) == ("which beagle did I adopt?", answer)
    assert latest["meta_data"]["channel"] == "app"


def test_a_model_of_the_caller_s_answers(tmp_path: Path) -> None:
    asked = list[str]()

    def model(messages: Any, _: Any) -> str:
        asked.extend(message["content"] for message in messages)
        return "<think>hm</think>Rex."

    with opened(tmp_path, model=model) as memo:
        fill(memo)
        assert memo.get_response("which beagle did I adopt?") == "Rex."
        assert BEAGLE in "".join(asked)


def test_two_users_and_two_assistants_share_one_pipeline(tmp_path: Path) -> None:
    with (
        opened(tmp_path) as tom,
        opened(tmp_path / "." / "sub" / "..", "ann", retrieval_queue_capacity=2) as ann,
        opened(tmp_path, assistant_id="other") as other,
    ):
        assert tom.pipeline is ann.pipeline is other.pipeline
        fill(tom)
        ann.add_memory("My beagle is Bella.", "A fine name.")
        other.add_memory("hello", "hi")
        tom.force_mid_term_analysis(PATIENCE_S)
        assert [fact["knowledge"] for fact in ann.get_assistant_knowledge_summary()] == [GHENT]
        shared_facts = ann.retriever.retrieve_context("where are you from? Ghent?", "ann")
        assert [fact["knowledge"] for fact in shared_facts["retrieved_assistant_knowledge"]] == [GHENT]
        assert other.get_assistant_knowledge_summary() == []
        assert ann.get_user_profile_summary() == other.get_user_profile_summary() == "None"
        assert [page["user_input"] for page in ann.short_term_memory.get_all()] == ["My beagle is Bella."]
        assert ann.user_long_term_memory.knowledge_base == []
        assert len(tom.retriever.retrieve_context("beagle", "tom")["retrieved_pages"]) > 2
        assert len(ann.retriever.retrieve_context("beagle", "tom")["retrieved_pages"]) == 2


def test_the_last_one_closes_the_pipeline(tmp_path: Path) -> None:
    tom, ann = opened(tmp_path), opened(tmp_path, "ann")
    pipeline = tom.pipeline
    tom.close()
    tom.close()
    for call in (
        lambda: tom.add_memory("a", "b"),
        lambda: tom.get_response("a"),
        tom.get_user_profile_summary,
        tom.get_memory_stats,
        tom.force_mid_term_analysis,
        tom.short_term_memory.get_all,
        lambda: tom.mid_term_memory.sessions,
        lambda: tom.retriever.retrieve_context("a", "tom"),
    ):
        with pytest.raises(ClosedError, match=r"used after close\(\)"):
            call()
    ann.add_memory("a", "b")
    assert not pipeline.closed
    ann.close()
    assert pipeline.closed
    assert not shared._open
    with opened(tmp_path, "ann") as again:
        assert again.short_term_memory.get_all()[0]["user_input"] == "a"
        again.pipeline.close()  # by somebody else: whoever comes next gets a new one
        with opened(tmp_path, "ann") as other:
            assert other.short_term_memory.get_all()
            again.close()
            assert not other.pipeline.closed


def test_many_threads_open_use_and_close(tmp_path: Path) -> None:
    errors = list[BaseException]()

    def work(number: int) -> None:
        try:
            for _ in range(3):
                with opened(tmp_path, f"user {number}", config={"runtime.socket": False}) as memo:
                    memo.add_memory("a", "b")
        except BaseException as error:  # noqa: BLE001 - the thread's edge
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not errors
    with MemoryPipeline.open(tmp_path, workers=False, embedding__backend="fake") as memory:
        assert len(memory.pages()) == 12


def test_other_settings_for_the_same_folder_are_refused(memo: Memoryos) -> None:
    path = Path(memo.data_storage_path)
    with pytest.raises(ConfigError, match=r"other settings \(short_term.capacity, mid_term.heat_threshold differ\)"):
        opened(path, "ann", short_term_capacity=9, mid_term_heat_threshold=2)
    assert not memo.pipeline.closed


def test_another_process_that_owns_the_folder_is_named(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom mos_pipeline import Memoryos\n"
        "memo = Memoryos('tom', '', sys.argv[1], short_term_capacity=3)\nmemo.add_memory('a', 'b')\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=REPO,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(StoreLockedError, match=str(other.pid)):
            opened(tmp_path)
        out, err = other.communicate(timeout=PATIENCE_S)
    assert (other.returncode, out, err) == (0, "", ""), "it was not closed at exit"
    with opened(tmp_path) as memo:
        assert memo.short_term_memory.get_all()[0]["user_input"] == "a"


KILLED = """
import os, signal, sys
from mos_pipeline import Memoryos
tom, ann = (Memoryos(user, "", sys.argv[1], short_term_capacity=3) for user in ("tom", "ann"))
for number in range(7):
    tom.add_memory(f"said {number}", "answered")
    ann.add_memory(f"told {number}", "answered")
print(tom.get_response("what did I say?").splitlines()[0], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_accepted_survives_a_kill(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with opened(tmp_path) as memo:
        said = [page.user_input for page in memo.pipeline.pages("tom")]
        assert said == [*(f"said {number}" for number in range(7)), "what did I say?"]
        assert memo.short_term_memory.get_all()[-1]["agent_response"].startswith(done.stdout.strip())
        assert len(memo.pipeline.pages("ann")) == 7


def test_the_readme_s_example_runs_as_it_stands(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(from mos_pipeline import Memoryos.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert BEAGLE in done.stdout
    with MemoryPipeline.open(tmp_path / "memory", workers=False, embedding__backend="fake") as memory:
        assert len(memory.pages("tom", assistant_id="helper")) == 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_refused_and_the_parent_goes_on(memo: Memoryos) -> None:
    memo.add_memory("a", "b")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        told = list[str]()
        try:
            for call in (
                lambda: memo.add_memory("c", "d"),
                memo.get_memory_stats,
                memo.short_term_memory.get_all,
                lambda: opened(Path(memo.data_storage_path), "ann"),
            ):
                try:
                    call()
                    told.append("done")
                except (ClosedError, StoreLockedError) as error:
                    told.append(type(error).__name__)
            memo.close()
        finally:
            os.write(write, " ".join(told).encode())
            os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 4096).decode() == "ClosedError ClosedError ClosedError StoreLockedError"
    os.close(read)
    memo.add_memory("c", "d")
    assert len(memo.short_term_memory.get_all()) == 2


@pytest.mark.parametrize("folder", ["users/tom", "assistants"])
def test_a_data_folder_of_the_original_is_not_taken_for_a_store(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(StoreError, match=rf"mos-pipeline migrate {tmp_path} --store NEW"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [Path(folder).parts[0]]


def test_arguments_that_can_not_be_taken(tmp_path: Path) -> None:
    for wrong in (
        {"user": ""},
        {"assistant_id": ""},
        {"retrieval_queue_capacity": 0},
        {"short_term_capacity": 0},
        {"short_term_capacity": "ten"},
        {"config": {"no.such": 1}},
    ):
        with pytest.raises((InputError, ConfigError)):
            opened(tmp_path / "data", **wrong)
    with pytest.raises(InputError, match="data_storage_path"):
        Memoryos("tom", "", "")
    assert not (tmp_path / "data").exists()
    assert not shared._open


def test_that_no_model_is_asked_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path, embedding_model_kwargs={"batch_size": 8}) as memo, opened(tmp_path, "ann"):
        assert "Memoryos" in repr(memo)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("mos_pipeline.memoryos")]
    assert len(told) == 2
    assert "no API key and no base URL were given" in told[0]
    assert "of embedding_model_kwargs batch_size are not used" in told[1]


def test_arguments_for_the_model_reach_the_settings(tmp_path: Path) -> None:
    kwargs = {"device": "cpu", "truncate_dim": 64, "normalize_embeddings": True, "prompt": "about: "}
    with opened(tmp_path, embedding_model_kwargs=kwargs) as memo:
        settings = memo.pipeline._engine.config.embedding
        assert settings.model_kwargs == {"device": "cpu", "truncate_dim": 64}
        assert (settings.query_prompt, settings.document_prompt) == ("about: ", "about: ")
        assert not settings.trust_remote_code
        memo.pipeline.wait_idle(60)
    with pytest.raises(ConfigError, match=r"device must be of type str"):
        opened(tmp_path / "other", embedding_model_kwargs={"device": 0})
