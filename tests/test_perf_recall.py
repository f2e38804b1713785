"""Reading questions, averaging answers, choosing weights: the logic of ``perf recall`` and ``perf tune``."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mos_pipeline.errors import InputError
from mos_pipeline.memory.word_index import WordIndex
from mos_pipeline.memory.words import analyse, query_terms
from perf import __main__ as harness
from perf import recall, tune
from perf.questions import Question, read_conversations
from perf.recall import Answer, Report, over_plain, summary

LOCOMO: list[dict[str, Any]] = [
    {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Rob",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "I have a beagle."},
                {"speaker": "Rob", "dia_id": "D1:2", "text": "Lovely!"},
                {"speaker": "Rob", "dia_id": "D1:3", "text": "Mine is a cat."},
            ],
        },
        "qa": [
            {"question": "Which dog?", "evidence": ["D1:1; D1:3"], "category": 1},
            {"question": "Which cat?", "evidence": ["D1:3", "D"], "category": 4},
            {"question": "Which bird?", "evidence": ["D7:1"], "category": 4},
            {"question": "Which fish?", "evidence": ["D1:1"], "category": 5},
        ],
    }
]
BEAM: list[dict[str, Any]] = [
    {
        "chat_id": "beam-1",
        "messages": [
            {"id": 0, "role": "user", "time_anchor": "March-15-2024", "content": "Plan my trip."},
            {"id": 1, "role": "assistant", "time_anchor": None, "content": "Where to?"},
            {"id": 2, "role": "user", "time_anchor": "April-02-2024", "content": "To Rome."},
            {"id": 3, "role": "assistant", "time_anchor": None, "content": "Good."},
        ],
        "questions": [
            {"kind": "information_extraction", "question": "Where?", "source_ids": [2, 3]},
            {"kind": "abstention", "question": "Why?", "source_ids": []},
        ],
    }
]


@pytest.fixture
def locomo(tmp_path: Path) -> Path:
    path = tmp_path / "locomo.json"
    path.write_text(json.dumps(LOCOMO), "utf-8")
    return path


@pytest.fixture
def beam(tmp_path: Path) -> Path:
    path = tmp_path / "beam.json.gz"
    path.write_bytes(gzip.compress(json.dumps(BEAM).encode()))
    return path


def test_locomo_questions_name_the_pages_of_their_turns(locomo: Path) -> None:
    (talk,) = read_conversations(locomo)
    assert [page["user_input"] for page in talk.pages] == ["I have a beagle.", ""]
    assert talk.questions == [
        Question("Which dog?", "multi-hop", frozenset({0, 1})),
        Question("Which cat?", "single-hop", frozenset({1})),
    ]
    assert (talk.name, talk.adversarial, talk.unresolved) == ("conv-1", 1, 1)


def test_turns_are_pages_of_their_own_on_their_speakers_side(locomo: Path) -> None:
    (talk,) = read_conversations(locomo, "turn")
    sides = [(page["user_input"], page["agent_response"]) for page in talk.pages]
    assert sides == [("I have a beagle.", ""), ("", "Lovely!"), ("", "Mine is a cat.")]
    assert [question.evidence for question in talk.questions] == [{0, 2}, {2}]


@pytest.mark.parametrize(("level", "evidence"), [("page", {1}), ("turn", {2, 3})])
def test_beam_messages_make_pages_with_the_date_of_their_anchor(beam: Path, level: str, evidence: set[int]) -> None:
    (talk,) = read_conversations(beam, level)
    assert [question.evidence for question in talk.questions] == [evidence]
    assert (talk.unresolved, talk.pages[0]["user_id"]) == (1, "beam-1")
    assert [page["timestamp"] for page in talk.pages][:: len(talk.pages) - 1] == [
        "2024-03-15 00:00:00",
        "2024-04-02 00:00:00",
    ]
    assert talk.pages[0]["metadata"]["session"] != talk.pages[-1]["metadata"]["session"]


@pytest.mark.parametrize("content", ["[]", "{}", '[{"conversation": {}}]'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content, "utf-8")
    with pytest.raises(InputError):
        read_conversations(path)


def test_recall_counts_shares_of_the_evidence_and_rank_the_first() -> None:
    def answer(category: str, evidence: set[int], found: list[int]) -> Answer:
        return Answer(Question("?", category, frozenset(evidence)), found, [40] * len(found), 2.0)

    report = summary("joined", [answer("a", {1, 2}, [5, 2, 1]), answer("b", {9}, [1, 2, 3])], [1, 2, 3])
    assert report.recall == {1: 0.0, 2: 0.25, 3: 0.5}
    assert report.hits == {1: 0.0, 2: 0.5, 3: 0.5}
    assert report.mrr == 0.25
    assert report.tokens == {1: 10.0, 2: 20.0, 3: 30.0}
    assert report.categories == {"a": 1.0, "b": 0.0}


def test_ours_is_compared_with_the_better_plain_search_at_each_depth() -> None:
    def report(method: str, *recalls: float) -> Report:
        return Report(method, 1, dict(zip((5, 10, 20), recalls, strict=True)), {}, 0.0, {}, {}, 0.0, 0.0)

    joined, dense, bm25 = report("joined", 0.5, 0.75, 1.0), report("dense", 0.25, 0.5, 0.0), report("bm25", 0.125, 1, 0)
    assert over_plain([joined, dense, report("two-level", 1.0, 1.0, 1.0), bm25]) == {5: 2.0, 10: 0.75}
    assert over_plain([joined, dense]) == {}


def talk(name: str, dataset: str = "one") -> tune.Talk:
    """Return a talk of twenty pages, whose question is answered by the words of one and the vector of another."""
    words = WordIndex()
    for number in range(20):
        words.add(number, *analyse(f"page {number} beagle" if number == 3 else f"page {number}"))
    cosines = np.linspace(0.9, 0.0, 20)
    return tune.Talk(dataset, name, words, [tune.Asked(query_terms("beagle"), cosines, np.arange(20) == 3)])


def test_settings_are_judged_on_the_talks_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "SHAPES", tune.SHAPES[:1])
    talks = [talk("a"), talk("b"), talk("b", "two")]
    recalls = np.zeros((3, len(tune.settings())))
    recalls[0, 4], recalls[1:, 7] = 1.0, 0.5
    assert tune.talk_recall(talks[0]).tolist() == [1.0] * len(tune.settings())
    assert tune.best_setting(talks, recalls) == 7
    assert tune.best_setting(talks, recalls, without="b") == 4
    assert tune.left_out(talks, recalls, "one") == 0.0
    assert tune.left_out(talks, recalls, "two") == 0.0


@pytest.mark.slow
def test_both_commands_run(locomo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = tmp_path / "told.json"
    arguments = ["--dataset", str(locomo), "--backend", "fake", "--dir", str(tmp_path)]
    baselines = ["--baseline", "dense,bm25,two-level"]
    assert harness.main(["recall", *arguments, *baselines, "--k", "1,2", "--json", str(told)]) == 0
    written = json.loads(told.read_text("utf-8"))
    methods = written["methods"]
    result = written["benches"]["recall"]
    assert [series["name"] for series in result["series"] if series["plot"] == "recall"] == list(recall.METHODS)
    assert {figure["name"]: figure["median"] for figure in result["figures"]}["recall@2, joined"] == 1.0
    assert harness.main(["report", str(told), "--out", str(tmp_path / "out")]) == 0
    assert [method["method"] for method in methods] == ["joined", "dense", "bm25", "two-level"]
    assert methods[0]["recall"]["2"] == 1.0
    assert (written["adversarial"], written["unresolved"], set(written["over_plain"])) == (1, 1, {"1", "2"})
    shown = capsys.readouterr().out
    assert "2 pages of 1 conversations, 2 questions; left out: 1 adversarial, 1 without evidence" in shown
    named = ("recall@2", "hit@1", "MRR", "tokens@2", "ms median", "p99", "multi-hop", "single-hop")
    assert all(name in shown for name in (*named, "over the better of dense and bm25: recall@1 "))
    assert harness.main(["tune", *arguments]) == 0
    assert "chosen: dense 1" in capsys.readouterr().out
