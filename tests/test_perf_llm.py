"""The bench of calls to a language model: its counting, its endpoint, and the peer's program with a made-up library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf import adds, beside, cliff, llm, peers, variants
from perf.endpoint import Told, endpoint, share_of_ideal
from perf.options import Options
from perf.peers import Peer, peer
from perf.texts import synthetic_pages

LIBRARY = """
import os


class Memoryos:
    def __init__(self, **settings):
        print("the original prints what it does")
        self.settings, self.pages = settings, []

    def add_memory(self, user_input, agent_response):
        self.pages.append((user_input, agent_response))
        os.makedirs(self.settings["data_storage_path"], exist_ok=True)
        with open(os.path.join(self.settings["data_storage_path"], "pages.json"), "a") as file:
            file.write(user_input)
        self.retriever, self.user_id = self, self.settings["user_id"]
        if user_input == "fail":
            raise RuntimeError(f"no room in {self.settings['data_storage_path']}")

    def retrieve_context(self, query, user_id):
        return {"retrieved_pages": [page for page in self.pages if query[0] in page]}
"""
MEM0 = """
class Memory:
    @classmethod
    def from_config(cls, settings):
        print(settings)
        assert settings["vector_store"]["config"]["embedding_model_dims"] == 384
        memory = cls()
        memory.kept = []
        return memory

    def add(self, messages, user_id, infer):
        self.kept += [{**message, "user": user_id} for message in messages][infer:]

    def search(self, query, filters):
        return {"results": [one for one in self.kept if query in one["content"]]}

    def get_all(self, filters, top_k):
        return {"results": [one for one in self.kept if one["user"] == filters["user_id"]][:top_k]}
"""
TRANSFORMER = "class SentenceTransformer:\n    def __init__(self, folder): pass\n"


@given(
    st.integers(1, 40),
    st.integers(6, 30),
    st.floats(0.001, 10),
    st.floats(0.1, 1.0),
    st.floats(0.0, 1.0),
)
def test_the_share_of_the_ideal_is_that_of_the_calls_in_work(
    in_flight: int, waves: int, latency_s: float, share: float, spread: float
) -> None:
    """Calls come in waves that are more or less spread over their time, each wave as late as the share says."""
    period = latency_s / share
    arrivals = [
        wave * period + spread * period * number / in_flight for wave in range(waves) for number in range(in_flight)
    ]
    assert share_of_ideal(arrivals, in_flight, latency_s) == pytest.approx(share)


def test_too_few_calls_have_no_share() -> None:
    with pytest.raises(RuntimeError, match="160 calls are too few for 32 in flight; more than 160 tell"):
        share_of_ideal([float(number) for number in range(160)], 32, 0.35)


def test_turns_are_those_that_a_source_names_else_sides_with_text() -> None:
    page = {"user_id": "a", "user_input": "one", "agent_response": " "}
    assert llm._turns(page) == 1
    assert llm._turns({**page, "agent_response": "two"}) == 2
    assert llm._turns({**page, "metadata": {"dia_ids": ["D1:1", "D1:2", "D1:3"]}}) == 3


@pytest.mark.slow
def test_calls_are_counted_of_each_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "TALKS", 2)
    pages = 3 * adds.CAPACITY
    options = Options(quick=True, pages=pages, folder=tmp_path)
    talks = llm._talks(options)
    assert [len(talk) for talk in talks] == [pages] * llm.TALKS
    turns = sum(llm._turns(page) for talk in talks for page in talk)
    figures = {figure.name: figure for figure in llm._counts(options, talks)}
    online, bulk, plain = (
        figures[f"LLM calls per turn, {way}"].median * turns for way in ("online", "bulk", "bulk, per_page")
    )
    assert online >= 2 * 3 * llm.TALKS  # continuity and topics of each batch, and promotions
    assert 2 * llm.TALKS <= bulk <= online
    assert plain >= 2 * (pages - 1) * llm.TALKS
    assert all(figure.median > 0 for figure in figures.values())
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_our_adds_are_timed_user_by_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adds, "PAUSE_S", 0.0)
    monkeypatch.setattr(cliff, "peer", lambda _name: None)
    options = Options(quick=True, folder=tmp_path, latency_ms=0.0, settings={"embedding__backend": "fake"})
    result = cliff.run(options)
    (early, late, _), (curve,) = result.figures, result.series
    assert [x for x, _ in curve.points] == list(range(1, cliff.QUICK_ADDS + 1))
    assert (early.samples, late.samples) == (2 * (adds.CAPACITY - 1), 2 * (cliff.QUICK_ADDS - adds.CAPACITY))
    assert result.configuration["embedding"]["backend"] == "fake"
    assert "perf peers install" in result.notes[0]
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_cliff_is_measured_with_the_peer_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = installed(tmp_path / "peers")
    monkeypatch.setattr(cliff, "peer", lambda _name: other)
    monkeypatch.setattr(adds, "PAUSE_S", 0.0)
    options = Options(quick=True, folder=tmp_path, latency_ms=0.0, settings={"embedding__backend": "fake"})
    result = cliff.run(options)
    assert [series.name for series in result.series] == ["mos_pipeline", "memoryos-pro"]
    assert all(len(series.points) == cliff.QUICK_ADDS for series in result.series)
    assert not result.notes


def test_the_endpoint_tells_what_was_asked_since_the_last_time() -> None:
    with endpoint(0.0) as asked:
        assert asked.base_url.startswith("http://127.0.0.1:")
        assert asked.told() == Told(0, 0, 0, {}, [], 0)


def installed(folder: Path) -> Peer:
    for name in ("memoryos-pro", "mem0ai"):
        (folder / name).mkdir(parents=True)
        (folder / name / "installed").touch()
        (folder / name / "sentence_transformers.py").write_text(TRANSFORMER)
    (folder / "mem0ai" / "mem0.py").write_text(MEM0)
    library = folder / "memoryos-pro" / "memoryos"
    library.mkdir()
    (library / "__init__.py").write_text(LIBRARY)
    (library / "utils.py").write_text("_model_cache = {}\n")
    found = peer("memoryos-pro", folder)
    assert found is not None
    return found


def task(folder: Path, *users: list[list[str]]) -> dict[str, object]:
    told = [{"pages": pages, "folder": str(folder), "base_url": "b"} for pages in users]
    return {"users": told, "pause_s": 0.0, "model": "m", "capacity": 9}


def test_a_peer_is_there_once_it_is_installed(tmp_path: Path) -> None:
    assert peer("memoryos-pro", tmp_path) is None
    found = installed(tmp_path).run({**task(tmp_path, [["a", "b"]] * 3, [["c", "d"]]), "questions": ["c?", "d?"]})
    assert [len(spent) for spent in found["seconds"]] == [3, 1]
    assert all(value > 0 for spent in (*found["seconds"], found["asked"]) for value in spent)
    assert len(found["asked"]) == 2


def test_the_other_peer_tells_how_much_it_keeps(tmp_path: Path) -> None:
    installed(tmp_path)
    found = peer("mem0ai", tmp_path)
    assert found is not None
    asked = {"pages": [["a", "b"], ["c", "d"]], "questions": ["c"], "told": [["e", "f"]], "dimension": 384}
    told = found.run({**asked, "folder": str(tmp_path), "model": "m", "base_url": "b"})
    assert [len(told[name]) for name in ("seconds", "asked", "told")] == [2, 1, 1]
    assert (told["kept"], told["remembered"]) == (4, 1)


def test_without_any_peer_there_is_nothing_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "peer", lambda _name: None)
    result = beside.run(Options())
    assert (result.figures, result.series) == ([], [])
    assert [note.partition(" ")[0] for note in result.notes] == ["memoryos-pro", "mem0ai"]
    assert all("perf peers install" in note for note in result.notes)


@pytest.mark.slow
def test_ours_and_theirs_are_measured_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path / "peers")
    monkeypatch.setattr(beside, "peer", lambda name: peer(name, tmp_path / "peers"))
    fake = replace(variants.FP32, settings={"embedding__backend": "fake"})
    odd = replace(fake, name="odd", settings={"embedding__backend": "fake", "embedding__fake_dimension": 0})
    other = replace(fake, name="other", settings={**fake.settings, "embedding__tier": "static"})
    monkeypatch.setattr(variants, "VARIANTS", (fake, odd, other))
    monkeypatch.setattr(beside, "QUICK_VARIANTS", 3)
    monkeypatch.setattr(beside, "QUICK_TURNS", 1)
    monkeypatch.setattr(beside, "openai_settings", lambda url: adds.openai_settings(url, embedding__backend="fake"))
    stores = tmp_path / "stores"
    stores.mkdir()
    result = beside.run(Options(quick=True, folder=stores, latency_ms=1.0))
    aims = {figure.name: str(figure.aims[0]) for figure in result.figures if figure.aims}
    assert aims == {
        "late add, memoryos-pro over ours": "median ≥ 50000",
        "ingest with the endpoint, ours over memoryos-pro": "median ≥ 100",
        "retrieve at 24 pages, memoryos-pro over ours": "median ≥ 14",
        "disk for a page at 24 pages, memoryos-pro over ours": "median ≥ 16",
        "ingest without an endpoint, fp32, ours over mem0ai": "median ≥ 3.5",
    }
    assert all(figure.median > 0 for figure in result.figures)
    (turns,) = (figure for figure in result.figures if figure.name == "ingest without an endpoint, mem0ai")
    assert turns.samples == 2
    assert len({series.plot for series in result.series}) == 5
    assert result.notes[-2].startswith("odd is left out: ")
    assert result.notes[-1].startswith("other is left out: ")
    assert set(beside.NOT_EQUAL["memoryos-pro"] + beside.NOT_EQUAL["mem0ai"]) < set(result.notes)
    assert not any(stores.iterdir())


def test_a_peer_that_fails_tells_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"memoryos-pro ended with 1: [\s\S]*no room in"):
        installed(tmp_path).run(task(tmp_path, [["fail", ""]]))


def test_a_peer_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "RUN_S", 0.2)
    with pytest.raises(RuntimeError, match=r"was not done after 0\.2 s"):
        installed(tmp_path).run({**task(tmp_path, [["a", "b"]]), "pause_s": 30.0})


def test_installing_leaves_alone_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed(tmp_path)
    assert peers.main(["install", "--dir", str(tmp_path)]) == 0
    assert str(tmp_path / "memoryos-pro") in capsys.readouterr().out


def test_synthetic_talks_differ(tmp_path: Path) -> None:
    first, second, *_ = llm._talks(Options(pages=5, folder=tmp_path))
    assert [page["user_id"] for page in (first[0], second[0])] == ["user1", "user2"]
    assert first[0]["user_input"] != second[0]["user_input"] != next(synthetic_pages("user3", 3))["user_input"]
