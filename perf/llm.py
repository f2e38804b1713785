"""Calls to a language model: how many, how long, and how many at once.

The endpoint is a fake one in a process of its own, which counts. Calls and tokens are counted with the fake embedder:

- online: pages come one by one, and every full batch, with its promotion, is worked off before the next page;
- bulk: ``mos-pipeline ingest`` of all conversations in one file, until everything is worked off;
- ``per_page``, the same with MemoryOS's own prompts a page, for comparison.

A turn is one message, so a page has up to two of them, or more where a speaker went on. Tokens are a quarter of the
characters, of prompts, answers and texts alike.

The endpoint's calls a second, over the ideal: 64 users, whose pages come all at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from perf.adds import CAPACITY, come_to_rest, openai_settings
from perf.endpoint import Endpoint, Told, endpoint, share_of_ideal
from perf.options import Options, nested
from perf.pipelines import wait_ready
from perf.result import BenchResult, Figure, at_least, at_most
from perf.scale import crowd_pages
from perf.texts import Page, synthetic_pages

__all__ = ["run"]

CHARS_OF_TOKEN = 4

TALKS, TALK_PAGES = 5, 300  # where there is no data set
QUICK_PAGES = 60
IDLE_S = 1800.0

USERS, IN_FLIGHT = 64, 32
BATCHES_OF_USER = 12


def run(options: Options) -> BenchResult:
    """Measure all of it."""
    talks = _talks(options)
    counts, share = _counts(options, talks), _share(options)
    return BenchResult("llm", options.checked(openai_settings("http://127.0.0.1")), [*counts, share])


def _talks(options: Options) -> list[list[Page]]:
    """Return the pages of each user."""
    source = options.source()
    if source is None:
        most = options.size(TALK_PAGES, QUICK_PAGES)
        return [list(islice(synthetic_pages(f"user{seed}", seed), most)) for seed in range(1, TALKS + 1)]
    talks: dict[str, list[Page]] = {}
    for page in source:
        talks.setdefault(page["user_id"], []).append(page)
    most = options.size(len(source), QUICK_PAGES)
    return [pages[:most] for pages in talks.values()]


# ---- calls and tokens a turn


def _counts(options: Options, talks: Sequence[list[Page]]) -> list[Figure]:
    turns = sum(_turns(page) for talk in talks for page in talk)
    chars = sum(len(page["user_input"]) + len(page["agent_response"]) for talk in talks for page in talk)
    words = chars / CHARS_OF_TOKEN
    with endpoint(0.0) as asked:
        online = _online(options, talks, asked)
        bulk = _bulk(options, talks, asked)
        plain = _bulk(options, talks, asked, plan="per_page")
    calls = "LLM calls per turn"
    return [
        Figure(f"{calls}, online", "", turns, online.calls / turns, aims=(at_most(0.15),), note=_told(online)),
        Figure(f"{calls}, bulk", "", turns, bulk.calls / turns, aims=(at_most(0.03),), note=_told(bulk)),
        Figure(f"{calls}, bulk, per_page", "", turns, plain.calls / turns, note=_told(plain)),
        *_tokens("online", online, words, turns),
        *_tokens("bulk", bulk, words, turns),
        *_tokens("bulk, per_page", plain, words, turns),
    ]


def _turns(page: Page) -> int:
    metadata = page.get("metadata") or {}
    return len(metadata.get("dia_ids", ())) or sum(
        bool(page[side].strip()) for side in ("user_input", "agent_response")
    )


def _told(told: Told) -> str:
    return ", ".join(f"{task or 'other'} {count}" for task, count in sorted(told.tasks.items()))


def _tokens(way: str, told: Told, words: float, turns: int) -> list[Figure]:
    text = f"the text itself has {words / turns:.1f} tokens a turn"
    return [
        Figure(f"prompt tokens over the text's, {way}", "", turns, told.tokens_in / words, note=text),
        Figure(f"completion tokens over the text's, {way}", "", turns, told.tokens_out / words),
    ]


def _online(options: Options, talks: Sequence[list[Page]], asked: Endpoint) -> Told:
    with (
        options.store() as store,
        options.open(store, embedding__backend="fake", **openai_settings(asked.base_url)) as memory,
    ):
        wait_ready(memory)
        for start in range(0, max(map(len, talks)), CAPACITY):
            for talk in talks:
                for page in talk[start : start + CAPACITY]:
                    memory.add(**page)
            come_to_rest(memory)
        return asked.told()


def _bulk(options: Options, talks: Iterable[list[Page]], asked: Endpoint, plan: str = "batched") -> Told:
    with tempfile.TemporaryDirectory(prefix="mos-perf-", dir=options.folder) as folder:
        file, settings = Path(folder) / "pages.jsonl", Path(folder) / "settings.json"
        with file.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(page) + "\n" for talk in talks for page in talk)
        wanted = options.with_own(openai_settings(asked.base_url, llm__plan=plan, embedding__backend="fake"))
        settings.write_text(json.dumps(nested(wanted)), "utf-8")  # YAML, too
        command = [sys.executable, "-m", "mos_pipeline", "ingest", str(file), "--config", str(settings)]
        command += ["--store", str(Path(folder) / "store")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=IDLE_S, check=False)  # noqa: S603 (our own)
        if done.returncode:
            raise RuntimeError(f"ingest ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return asked.told()


# ---- many calls at once


def _share(options: Options) -> Figure:
    batches = options.times(BATCHES_OF_USER, 3)
    pages = islice(crowd_pages(USERS), USERS * batches * CAPACITY)
    settings = {"llm__max_in_flight": IN_FLIGHT // 2, "embedding__backend": "fake"}
    with endpoint(options.latency_s) as asked, options.store() as store:
        with options.open(store, **openai_settings(asked.base_url, **settings)) as memory:
            wait_ready(memory)
            for number, page in enumerate(pages):
                memory.add(**{**page, "user_id": f"user{number % USERS}"})
            memory.wait_idle(IDLE_S)
        told = asked.told()
    share = share_of_ideal(told.arrivals, IN_FLIGHT, options.latency_s)
    note = (
        f"{told.calls} calls of {options.latency_ms:g} ms, {told.most_in_flight} in flight at the most, two processes"
    )
    name = f"calls/s with {USERS} users, {IN_FLIGHT} in flight, over the ideal"
    return Figure(name, "", told.calls, share, aims=(at_least(0.9),), note=note)
