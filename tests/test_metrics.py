"""``stats()`` and Prometheus' text are two tellings of one snapshot."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline import Stats
from mos_pipeline.cli import main
from mos_pipeline.metrics import TaskStats, WorkerStats, prometheus
from tests.support import open_fake, page_text

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
SAMPLE = re.compile(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\} (-?[0-9]+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
PREFIX = "mos_pipeline_"
COUNTED = """
pages users sessions facts forgotten backlog_pages backlog_bytes waiting_pages in_flight_texts unwritten vectors
vector_bytes unlifted accepted_pages embedded_pages placed_pages written_pages embedded_texts reused_texts known_texts
memory
"""
EVER_GROWING = ["accepted_pages", "embedded_pages", "placed_pages", "written_pages", "embedded_texts", "reused_texts"]

counts = st.integers(0, 1 << 62)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
workers = st.builds(
    WorkerStats,
    st.sampled_from(["starting", "ready", "failed"]),
    st.lists(counts, max_size=3).map(tuple),
    counts,
    counts,
    st.none() | texts,
    st.lists(counts, max_size=3).map(tuple),
)
snapshots = st.builds(
    Stats,
    path=texts,
    **dict.fromkeys(COUNTED.split(), counts),
    restored=st.booleans(),
    set_aside=st.dictionaries(texts, texts, max_size=3),
    model=st.just({}) | st.just({"model": 'a "name"\n\\', "dimension": 384, "digest": "00", "backend": "fake"}),
    damage=st.lists(texts, max_size=3),
    workers=st.dictionaries(st.sampled_from(["embedder", "llm", "writer"]), workers, max_size=3),
    endpoint=st.sampled_from(["", "up", "down since 2026-11-26 21:00:00"]),
    owed=st.dictionaries(texts, counts, max_size=3),
    tasks=st.dictionaries(texts, st.builds(TaskStats, *[counts] * 8), max_size=3),
)


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], int]:
    """Read the text format, strictly: every sample after the TYPE of its name, none twice."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], int] = {}
    kinds: dict[str, str] = {}
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("#"):
            _, word, name, rest = line.split(" ", 3)
            assert NAME.fullmatch(name)
            if word == "TYPE":
                assert name not in kinds
                kinds[name] = rest
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, labels, value = match.groups()
        assert (kinds[name] == "counter") == name.endswith("_total")
        pairs = frozenset((key, unescaped(told)) for key, told in LABEL.findall(labels))
        assert (name, pairs) not in found
        found[name, pairs] = int(value)
    return found


def check_agree(text: str, stats: Stats) -> None:
    left = parsed(text)

    def take(name: str, **labels: str) -> int:
        return left.pop((PREFIX + name, frozenset({"store": stats.path, **labels}.items())))

    told = stats.as_dict()
    renamed = {"forgotten": "forgotten_pages", "unwritten": "unwritten_pieces", "unlifted": "unlifted_vectors"}
    assert take("memory_bytes", role="main") == told.pop("memory")
    for name, value in told.items():
        if isinstance(value, int):
            assert take(renamed.get(name, f"{name}_total" if name in EVER_GROWING else name)) == value
    assert take("set_aside_pages") == len(stats.set_aside)
    assert take("damaged_places") == len(stats.damage)
    if stats.model:
        assert take("model_info", **{key: str(value) for key, value in stats.model.items()}) == 1
    if stats.embedder:
        assert take("embedder_info", **{key: str(value) for key, value in stats.embedder.items()}) == 1
    for role, worker in stats.workers.items():
        assert take("worker_processes", role=role) == len(worker.pids)
        assert take("worker_waiting_pieces", role=role) == worker.waiting
        assert take("worker_restarts_total", role=role) == worker.restarts
        assert take("memory_bytes", role=role) == sum(worker.memory)
        for state in ("starting", "ready", "failed"):
            assert take("worker_state", role=role, state=state) == (worker.state == state)
    _check_model(stats, take)
    assert not left, "the text tells something that stats do not"


def _check_model(stats: Stats, take: Callable[..., int]) -> None:
    if stats.endpoint:
        assert take("llm_endpoint_up") == (stats.endpoint == "up")
    for name, pages in stats.owed.items():
        assert take("owed_pages", task=name) == pages
    for name, task in stats.tasks.items():
        assert take("llm_calls_total", task=name) == task.calls
        assert take("llm_prompt_tokens_total", task=name) == task.tokens_in
        assert take("llm_answer_tokens_total", task=name) == task.tokens_out
        for what in ("retries", "repairs", "fallbacks"):
            assert take(f"llm_{what}_total", task=name) == getattr(task, what)
        assert take("llm_latency_milliseconds", task=name, quantile="0.5") == task.median_ms
        assert take("llm_latency_milliseconds", task=name, quantile="0.99") == task.p99_ms


@given(snapshots)
def test_both_agree_on_every_number(stats: Stats) -> None:
    check_agree(prometheus(stats), stats)


def test_the_command_prints_what_stats_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        memory.add("tom", *page_text(1))
        assert main(["stats", "--store", str(tmp_path), "--prometheus"]) == 0  # asks the owner: this process
        text = capsys.readouterr().out
        told = re.search(r'memory_bytes\{.*role="main"\} (\d+)$', text, re.MULTILINE)  # never the same twice
        assert told
        assert int(told[1]) > 1 << 20
        check_agree(text, replace(memory.stats(), memory=int(told[1])))
