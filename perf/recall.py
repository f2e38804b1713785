"""How much of the evidence is found: ``python -m perf recall --dataset FILE``.

Every conversation becomes one user's memory, through the public pipeline; every question is asked as a user would. The
baselines search the same store, opened again with other settings: ``dense`` (the cosine alone), ``bm25`` (the pages'
words alone), ``two-level`` (MemoryOS's sessions before pages).

recall@k is the share of a question's evidence pages among the first k, averaged over the questions; a hit is a
question with one of them there; MRR the mean of 1 / rank of the first one, 0 where none is among the deepest k.
Tokens are a quarter of the found pages' characters. Where ``dense`` and ``bm25`` are both measured, the recall is also
told as a multiple of the better one's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline, Page
from mos_pipeline.config import load_config
from perf.options import Options, backends, settings_of
from perf.pipelines import wait_ready
from perf.processes import CpuShare
from perf.questions import Conversation, Question, read_conversations
from perf.result import BenchResult, Figure, Series
from perf.telling import begun
from perf.timing import median, percentile, seconds

__all__ = ["Answer", "Report", "main", "over_plain", "summary"]

METHODS: dict[str, dict[str, Any]] = {
    "joined": {},
    "dense": {"dense_weight": 1.0, "words_weight": 0.0, "window_weight": 0.0, "sitting_weight": 0.0},
    "bm25": {"dense_weight": 0.0, "words_weight": 1.0, "window_weight": 0.0, "sitting_weight": 0.0},
    "two-level": {"method": "two-level"},
}
BASELINES = tuple(METHODS)[1:]
PLAIN = ("dense", "bm25")
IDLE_TIMEOUT_S = 3600.0
ANSWER_TIMEOUT_S = 60.0
CHARS_A_TOKEN = 4
MS = 1000.0
CATEGORY_K = 10  # hits by category are counted among so many


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question found.

    Attributes:
        found: places of the pages found, best first.
        chars: characters of each of them.
    """

    question: Question
    found: list[int]
    chars: list[int]
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """One method's figures; ``recall``, ``hits`` and ``tokens`` by k, ``categories`` the hit rate of each."""

    method: str
    questions: int
    recall: dict[int, float]
    hits: dict[int, float]
    mrr: float
    tokens: dict[int, float]
    categories: dict[str, float]
    latency_median_ms: float
    latency_p99_ms: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write JSON where asked to."""
    given = _parser().parse_args(arguments)
    report, share = begun(given), CpuShare()
    conversations = read_conversations(given.dataset, given.level)
    adversarial, unresolved = (sum(getattr(c, name) for c in conversations) for name in ("adversarial", "unresolved"))
    print(
        f"{given.dataset.name}, {given.level}s: {sum(len(c.pages) for c in conversations)} pages of "
        f"{len(conversations)} conversations, {sum(len(c.questions) for c in conversations)} questions; left out: "
        f"{adversarial} adversarial, {unresolved} without evidence that there is"
    )
    settings = {"embedding__backend": given.backend, **settings_of(given.set)}
    configuration = load_config(overrides=settings).as_dict()
    with tempfile.TemporaryDirectory(prefix="mos-perf-", dir=given.dir) as folder:
        reports = [
            summary(method, _answers(Path(folder) / "store", conversations, method, max(given.k), settings), given.k)
            for method in ("joined", *given.baseline)
        ]
    ratios = over_plain(reports)
    print(_table(reports, ratios))
    if given.json is not None:
        result = BenchResult("recall", configuration, figures(reports, ratios), share.others(), series(reports))
        told = {**report, "benches": {result.bench: result.as_dict()}}
        told |= {"dataset": str(given.dataset), "level": given.level}
        told |= {"adversarial": adversarial, "unresolved": unresolved, "methods": [asdict(each) for each in reports]}
        told |= {"over_plain": ratios}
        given.json.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    return 0


def summary(method: str, answers: Sequence[Answer], depths: Sequence[int]) -> Report:
    """Average the answers' figures at each of the depths k."""
    asked = len(answers)
    ranks = [_rank(answer) for answer in answers]
    by_category: dict[str, list[bool]] = {}
    for answer, rank in zip(answers, ranks, strict=True):
        by_category.setdefault(answer.question.category, []).append(rank is not None and rank <= CATEGORY_K)
    latencies = [answer.latency_ms for answer in answers]
    return Report(
        method,
        asked,
        {k: sum(_recall(answer, k) for answer in answers) / asked for k in depths},
        {k: sum(rank is not None and rank <= k for rank in ranks) / asked for k in depths},
        sum(1 / rank for rank in ranks if rank is not None) / asked,
        {k: sum(sum(answer.chars[:k]) for answer in answers) / CHARS_A_TOKEN / asked for k in depths},
        {category: sum(hits) / len(hits) for category, hits in sorted(by_category.items())},
        median(latencies),
        percentile(latencies, 0.99),
    )


def over_plain(reports: Sequence[Report]) -> dict[int, float]:
    """Return the first report's recall over the better of the plain searches', by k; nothing where one is missing."""
    ours, plain = reports[0], [each for each in reports if each.method in PLAIN]
    if len(plain) < len(PLAIN):
        return {}
    best = {k: max(each.recall[k] for each in plain) for k in ours.recall}
    return {k: recall / best[k] for k, recall in ours.recall.items() if best[k]}


def figures(reports: Sequence[Report], ratios: Mapping[int, float]) -> list[Figure]:
    """Return each method's figures, and the first one's recall over that of the plain searches."""
    found = list[Figure]()
    for each in reports:
        found += [Figure(f"recall@{k}, {each.method}", "", each.questions, each.recall[k]) for k in each.recall]
        found.append(Figure(f"MRR, {each.method}", "", each.questions, each.mrr))
        latency = each.latency_median_ms, each.latency_p99_ms
        found.append(Figure(f"retrieve, {each.method}", "ms", each.questions, *latency))
    over = f"over the better of {' and '.join(PLAIN)}"
    return found + [Figure(f"recall@{k}, {over}", "", reports[0].questions, ratio) for k, ratio in ratios.items()]


def series(reports: Sequence[Report]) -> list[Series]:
    """Return each method's recall by k, and its tokens."""
    return [
        Series(plot, each.method, "k, pages", unit, [(float(k), of[k]) for k in sorted(of)])
        for plot, unit, name in (("recall", "recall@k", "recall"), ("tokens of what is found", "tokens", "tokens"))
        for each in reports
        for of in (getattr(each, name),)
    ]


def _recall(answer: Answer, k: int) -> float:
    evidence = answer.question.evidence
    return len(evidence.intersection(answer.found[:k])) / len(evidence)


def _rank(answer: Answer) -> int | None:
    return next((rank for rank, place in enumerate(answer.found, 1) if place in answer.question.evidence), None)


def _answers(
    store: Path, conversations: Iterable[Conversation], method: str, k: int, given: Mapping[str, Any]
) -> list[Answer]:
    """Ask everything in the order of the conversations; the first method fills the store."""
    settings = {**given, **{f"retrieval__{name}": value for name, value in METHODS[method].items()}}
    filled = store.exists()
    with MemoryPipeline.open(store, **settings) as pipeline:
        wait_ready(pipeline)
        if not filled:
            for conversation in conversations:
                pipeline.add_many(
                    {**page, "page_id": f"{conversation.name}:{place}"} for place, page in enumerate(conversation.pages)
                )
            pipeline.wait_idle(IDLE_TIMEOUT_S)
        return [_ask(pipeline, talk.name, question, k) for talk in conversations for question in talk.questions]


def _ask(pipeline: MemoryPipeline, user: str, question: Question, k: int) -> Answer:
    pages = list[Page]()

    def ask() -> None:
        found = pipeline.retrieve(user, question.text, k=k, timeout=ANSWER_TIMEOUT_S)
        if found.degraded:
            raise RuntimeError(f"no vector came for the question {question.text!r}")
        pages.extend(hit.page for hit in found.pages)

    latency = MS * seconds(ask)
    places = [int(page.page_id.rpartition(":")[2]) for page in pages]
    return Answer(question, places, [len(page.user_input) + len(page.agent_response) for page in pages], latency)


def _table(reports: Sequence[Report], ratios: dict[int, float]) -> str:
    depths = list(reports[0].recall)
    head = ["method", *(f"recall@{k}" for k in depths), *(f"hit@{k}" for k in depths), "MRR"]
    head += [*(f"tokens@{k}" for k in depths), "ms median", "p99"]
    rows = [head] + [
        [
            each.method,
            *(f"{each.recall[k]:.4f}" for k in depths),
            *(f"{each.hits[k]:.3f}" for k in depths),
            f"{each.mrr:.4f}",
            *(f"{each.tokens[k]:.0f}" for k in depths),
            f"{each.latency_median_ms:.1f}",
            f"{each.latency_p99_ms:.1f}",
        ]
        for each in reports
    ]
    categories = [[f"hit@{CATEGORY_K}", *reports[0].categories]]
    categories += [[each.method, *(f"{rate:.3f}" for rate in each.categories.values())] for each in reports]
    over = ", ".join(f"recall@{k} {ratio:.3f}" for k, ratio in ratios.items())
    lines = [*_aligned(rows), "", *_aligned(categories)]
    return "\n".join([*lines, "", f"over the better of {' and '.join(PLAIN)}: {over}"] if over else lines)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf recall", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, metavar="FILE", help="a LoCoMo or BEAM file")
    parser.add_argument("--k", type=_list_of(int), default=[5, 7, 10, 20], metavar="K,K", help="5,7,10,20 by default")
    parser.add_argument("--level", choices=("page", "turn"), default="page", help="turn: each turn its own page")
    parser.add_argument(
        "--baseline", type=_list_of(_baseline), default=[], metavar="NAME,NAME", help=", ".join(BASELINES)
    )
    parser.add_argument("--backend", choices=backends(), default=Options().backend)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; can be repeated")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where the store is made, and removed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser


def _baseline(name: str) -> str:
    if name not in BASELINES:
        raise argparse.ArgumentTypeError(f"{name!r} is no baseline; there are {', '.join(BASELINES)}")
    return name


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def read(text: str) -> list[Any]:
        return [kind(part.strip()) for part in text.split(",") if part.strip()]

    return read
