"""Choosing the ranking's weights: ``python -m perf tune --dataset FILE --dataset FILE:turn …``.

Every conversation is ingested through the public pipeline; then each question's parts (cosine, BM25 of pages, windows
and sittings) are computed for every shape of the formula, and joined with every set of weights of a grid; the cosine's
weight stays as it is, since only ratios matter. What counts is recall@10, each data set as much as another.

Cross-validation leaves out one conversation after the other (with its turns, where those are another data set): the
settings that are best for the rest are measured on it. The figure "left out" is what to expect of conversations that
were never seen; the settings printed are those that are best for all.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline import MemoryPipeline
from mos_pipeline.config import Retrieval
from mos_pipeline.memory.bm25 import Shape
from mos_pipeline.memory.word_index import WordIndex
from mos_pipeline.memory.words import UNIT, query_terms
from perf.options import Options, backends
from perf.pipelines import embed_query, wait_ready
from perf.questions import Conversation, read_conversations

__all__ = ["Asked", "Setting", "Talk", "best_setting", "left_out", "main", "settings", "talk_recall"]

K = 10
IDLE_TIMEOUT_S = 3600.0
DENSE = Retrieval().dense_weight
WORDS = (0.3, 0.5, 0.7, 0.9, 1.2)
WINDOW = (0.0, 0.5, 0.8, 1.1, 1.4)
SITTING = (0.0, 0.1, 0.3, 0.5, 0.8)
# k1 and b stay the textbook's: searched as well, they win nothing here and lose on the conversations left out.
SHAPES = [Shape(UNIT * Retrieval().bm25_k1, Retrieval().bm25_b, UNIT * words) for words in (20.0, 40.0, 60.0)]

Floats = npt.NDArray[np.float64]


class Setting(NamedTuple):
    """One point of the grid."""

    shape: Shape
    words: float
    window: float
    sitting: float


class Asked(NamedTuple):
    """A question: its terms uint32 (q,), the cosine of every page, and which pages are its evidence, each (n,)."""

    hashes: npt.NDArray[np.uint32]
    cosines: Floats
    evidence: npt.NDArray[np.bool_]


class Talk(NamedTuple):
    """A conversation of a data set, with its n pages in an index."""

    dataset: str
    name: str
    words: WordIndex
    asked: list[Asked]


def main(arguments: Sequence[str] | None = None) -> int:
    """Search the grid and print what was found."""
    given = _parser().parse_args(arguments)
    talks = list[Talk]()
    with tempfile.TemporaryDirectory(prefix="mos-perf-", dir=given.dir) as folder:
        for number, (path, level) in enumerate(map(_named, given.dataset)):
            talks += _talks(Path(folder) / str(number), path, level, given.backend)
    grid = settings()
    recalls = np.array([talk_recall(talk) for talk in talks])
    print(_report(talks, grid, recalls))
    return 0


def settings() -> list[Setting]:
    """Return the grid, shape by shape."""
    return [Setting(*each) for each in itertools.product(SHAPES, WORDS, WINDOW, SITTING)]


def talk_recall(talk: Talk) -> Floats:
    """Return the talk's mean recall@10 at every setting of the grid, in its order."""
    weights = np.array(list(itertools.product(WORDS, WINDOW, SITTING)))
    return np.concatenate([_mean_recall(talk, shape, weights) for shape in SHAPES])


def best_setting(talks: Sequence[Talk], recalls: Floats, *, without: str = "") -> int:
    """Return the number of the setting with the best mean over the data sets, the talk ``without`` left out."""
    return int(np.argmax(np.mean([_mean(talks, recalls, dataset, without) for dataset in _datasets(talks)], axis=0)))


def left_out(talks: Sequence[Talk], recalls: Floats, dataset: str) -> float:
    """Return the data set's mean recall, each talk's measured at the setting that is best for the other talks."""
    found = [
        (float(recalls[number, best_setting(talks, recalls, without=talk.name)]), len(talk.asked))
        for number, talk in enumerate(talks)
        if talk.dataset == dataset
    ]
    return sum(recall * asked for recall, asked in found) / sum(asked for _, asked in found)


def _mean(talks: Sequence[Talk], recalls: Floats, dataset: str, without: str = "") -> Floats:
    """Return the data set's mean recall over its questions, at every setting."""
    numbers = [n for n, talk in enumerate(talks) if talk.dataset == dataset and talk.name != without]
    if not numbers:  # it was the only one
        return np.zeros(recalls.shape[1])
    mean: Floats = np.average(recalls[numbers], axis=0, weights=[len(talks[number].asked) for number in numbers])
    return mean


def _mean_recall(talk: Talk, shape: Shape, weights: Floats) -> Floats:
    """Return the mean recall for each row (words, window, sitting) of ``weights``, shape (w,)."""
    view = talk.words.view(shape)
    total = np.zeros(len(weights))
    for asked in talk.asked:
        _, *scores, limit = view.search(asked.hashes)
        parts = np.array(scores, np.float64) / (limit or 1.0)
        joined = DENSE * asked.cosines + weights @ parts
        best = np.argpartition(-joined, min(K, joined.shape[1] - 1), axis=1)[:, :K]
        total += asked.evidence[best].sum(axis=1) / asked.evidence.sum()
    return total / max(len(talk.asked), 1)


def _datasets(talks: Sequence[Talk]) -> list[str]:
    return list(dict.fromkeys(talk.dataset for talk in talks))


def _report(talks: Sequence[Talk], grid: Sequence[Setting], recalls: Floats) -> str:
    chosen = best_setting(talks, recalls)
    lines = [f"{'recall@10':>28}  {'chosen':>8}  {'left out':>8}  {'own best':>8}  {'cosine':>8}"]
    for dataset in _datasets(talks):
        mean = _mean(talks, recalls, dataset)
        figures = (mean[chosen], left_out(talks, recalls, dataset), mean.max(), _cosine_alone(talks, dataset))
        lines.append(f"{dataset:>28}  " + "  ".join(f"{figure:8.4f}" for figure in figures))
    lines.append("")
    names = dict.fromkeys(talk.name for talk in talks)
    lines += [f"without {name:>20}: {_told(grid[best_setting(talks, recalls, without=name)])}" for name in names]
    lines.append(f"{'chosen':>28}: {_told(grid[chosen])}")
    return "\n".join(lines)


def _cosine_alone(talks: Sequence[Talk], dataset: str) -> float:
    mine = [talk for talk in talks if talk.dataset == dataset]
    recalls = [float(_mean_recall(talk, SHAPES[0], np.zeros((1, 3)))[0]) for talk in mine]
    return float(np.average(recalls, weights=[len(talk.asked) for talk in mine]))


def _told(setting: Setting) -> str:
    k1, b, window_words = setting.shape
    return (
        f"dense {DENSE:g}, words {setting.words:g}, window {setting.window:g}, sitting {setting.sitting:g}, "
        f"k1 {k1 / UNIT:g}, b {b:g}, window_words {window_words / UNIT:g}"
    )


def _talks(store: Path, path: Path, level: str, backend: str) -> Iterator[Talk]:
    with MemoryPipeline.open(store, embedding__backend=backend) as pipeline:
        wait_ready(pipeline)
        conversations = read_conversations(path, level)
        for conversation in conversations:
            pipeline.add_many(conversation.pages)
        pipeline.wait_idle(IDLE_TIMEOUT_S)
        for conversation in conversations:
            yield _talk(pipeline, f"{path.name}, {level}s", conversation)


def _talk(pipeline: MemoryPipeline, dataset: str, conversation: Conversation) -> Talk:
    engine: Any = pipeline._engine
    scope = next(scope for scope in engine.state.scopes if scope.user_id == conversation.name)
    seqs = engine.state.pages.seqs_of(scope.number)
    asked = []
    for question in conversation.questions:
        docs, cosines = engine.embedding.pool.scores(scope.page_rows, embed_query(pipeline, question.text))
        known, evidence = np.zeros(len(seqs)), np.zeros(len(seqs), bool)
        known[np.searchsorted(seqs, docs)] = cosines
        evidence[list(question.evidence)] = True
        asked.append(Asked(query_terms(question.text), known, evidence))
    return Talk(dataset, conversation.name, scope.words, asked)


def _named(text: str) -> tuple[Path, str]:
    name, _, level = text.rpartition(":")
    return (Path(name), level) if name and level in ("page", "turn") else (Path(text), "page")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf tune", description=__doc__)
    parser.add_argument(
        "--dataset",
        action="append",
        required=True,
        metavar="FILE[:LEVEL]",
        help="a LoCoMo or BEAM file; :turn makes each turn its own page; may be given several times",
    )
    parser.add_argument("--backend", choices=backends(), default=Options().backend)
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where stores are made, and removed")
    return parser
