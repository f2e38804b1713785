"""The embedded provider: tells chains and topics from the pages' vectors and words, without a model or a network.

Everything it writes stands in the pages: whole sentences, cut with an ellipsis where they are too long, and words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from heapq import nlargest
from itertools import chain

import numpy as np
import numpy.typing as npt

from mos_pipeline import config
from mos_pipeline.stages.facts import facts, merged_profile
from mos_pipeline.stages.sentences import Sentence, central, shorten, split_sentences, surfaces
from mos_pipeline.stages.tasks import Batch, Continuity, Knowledge, PageText, Previous, Topic, Vectors

__all__ = ["Extractive"]

OVERVIEW_CHARS = 240
CONTENT_CHARS = 300
CONTENT_SENTENCES = 4
KEYWORDS = 6
ASSISTANT_FACTS = 1  # each is embedded, which costs a text
THEME_KEYWORDS = 3
# How much a page's neighbours count when it is put to a topic, and by how much the mean cosine within topics must
# exceed that between them. On nine pages cut from two LoCoMo conversations, 0.2 puts 88 % of the pages right (81 % at
# 0, 88 % at 0.5, where alternating topics are lost) and the median excess is 0.18; within one session it is 0.13.
NEIGHBOUR_WEIGHT = 0.2
CLEARLY_APART = 0.15
ROUNDS = 2  # of moving pages to the nearer centre; most batches are settled then
TINY = 1e-12  # instead of the length of a row of zeros
SPLIT_PAGES = 64  # whose sentences are kept: continuity and topics ask for those of the same pages

Labels = npt.NDArray[np.bool_]


class Extractive:
    """Answers all tasks by extraction; deterministic."""

    def __init__(self, settings: config.Llm, long_term: config.LongTerm | None = None) -> None:
        self._threshold = settings.continuity_threshold
        self._long_term = long_term or config.LongTerm()

    def continuity(self, batch: Batch, previous: Previous | None) -> Continuity:
        """A page continues the one before it where the cosine of their vectors reaches the threshold."""
        before = np.zeros_like(batch.vectors[:1]) if previous is None else previous.vector[np.newaxis]
        rows = _unit(np.concatenate([before, batch.vectors]))
        cosines = np.einsum("ij,ij->i", rows[1:], rows[:-1])
        continues = [bool(cosine >= self._threshold) for cosine in cosines]
        if previous is None and continues:
            continues[0] = False
        overviews = []
        overview: Sequence[Sentence] = split_sentences(previous.overview) if previous else []
        for page, goes_on in zip(batch.pages, continues, strict=True):
            overview = _chained(overview if goes_on else [], _sentences(page))
            overviews.append(_joined([sentence.text for sentence in overview]))
        return Continuity(continues, overviews)

    def topics(self, batch: Batch) -> list[Topic]:
        """Make one topic of the batch, or two where its pages fall in two groups that are clearly apart."""
        if not batch.pages:
            return []
        sentences = [_sentences(page) for page in batch.pages]
        everywhere = _page_counts(sentences)
        second = self._second_topic(_unit(batch.vectors))
        if not second.any():
            return [_topic(list(range(len(sentences))), sentences, everywhere, everywhere)]
        topics = []
        for group in (np.flatnonzero(second == which).tolist() for which in (False, True)):
            mine = [sentences[i] for i in group]
            topics.append(_topic(group, mine, _page_counts(mine), everywhere))
        return topics

    def profile(self, profile: str, pages: list[PageText]) -> str:
        """Add the user's most telling first-person statements to the profile, word for word."""
        return merged_profile(profile, pages, self._long_term.profile_lines)

    def knowledge(self, pages: list[PageText]) -> Knowledge:
        """Take the most telling first-person statements of either side, word for word; one of the assistant's."""
        user = facts((page.user_input for page in pages), self._long_term.facts_per_promotion)
        return Knowledge(user, facts((page.agent_response for page in pages), ASSISTANT_FACTS))

    def _second_topic(self, rows: Vectors) -> Labels:
        """Return for each row of length one, (n, d), whether it belongs to the second topic; (n,), never all True."""
        one = np.zeros(len(rows), dtype=np.bool_)
        cosines = rows @ rows.T  # all there is to know: n is small beside d
        if len(rows) == 2:  # no pair within a topic to compare with
            return np.array([False, cosines[0, 1] < self._threshold])
        second = _two_groups(_with_neighbours(cosines))
        if second is None:
            return one
        return second if _within_less_between(cosines, second) >= CLEARLY_APART else one


def _unit(rows: Vectors) -> Vectors:
    """Return the rows scaled to length one; rows of zeros stay."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    scaled: Vectors = rows / np.maximum(lengths, np.float32(TINY))[:, np.newaxis]
    return scaled


def _with_neighbours(cosines: Vectors) -> Vectors:
    """Return the cosines, (n, n), of rows that have some of the rows before and after them: topics are contiguous."""
    mixed = cosines.copy()
    for products in (mixed, mixed.T):  # the rows of one side of the product, then those of the other
        plain = products.copy()
        products[1:] += np.float32(NEIGHBOUR_WEIGHT) * plain[:-1]
        products[:-1] += np.float32(NEIGHBOUR_WEIGHT) * plain[1:]
    lengths = np.sqrt(np.maximum(mixed.diagonal(), np.float32(TINY * TINY)))
    scaled: Vectors = mixed / (lengths[:, np.newaxis] * lengths)
    return scaled


def _two_groups(cosines: Vectors) -> Labels | None:
    """Split n rows, given by their cosines, (n, n), around two that are far apart (2-means); None where all are alike.

    A row's product with a group's mean is the sum of its cosines with the group's rows.
    """
    start = int(cosines.sum(axis=1).argmin())
    other = int(cosines[start].argmin())
    start = int(cosines[other].argmin())
    if start == other or cosines[start, other] > 1 - 1e-3:  # float16 leaves that much between equal vectors
        return None
    first, last = min(start, other), max(start, other)
    second: Labels = cosines[last] > cosines[first]
    total = cosines.sum(axis=0)
    for _ in range(ROUNDS):
        second[first], second[last] = False, True  # neither group runs empty
        part = second.astype(np.float32) @ cosines
        rest = total - part
        second = part / _length(part[second]) > rest / _length(rest[~second])
    second[first], second[last] = False, True
    return second


def _length(products: Vectors) -> np.float32:
    """Return the length of a group's sum, given by its products with the group's rows."""
    return np.float32(max(math.sqrt(max(products.sum(), 0.0)), TINY))


def _within_less_between(cosines: Vectors, second: Labels) -> float:
    """Return the mean cosine of pairs in one group less that of pairs in two, for n > 2 rows, given by all cosines."""
    size = int(second.sum())
    sizes = [len(cosines) - size, size]
    part = second.astype(np.float32) @ cosines
    between = float(part[~second].sum())
    within = (float(cosines.sum()) - 2 * between - float(cosines.trace())) / 2
    pairs = sum(n * (n - 1) for n in sizes) / 2
    return within / pairs - between / (sizes[0] * sizes[1])


@lru_cache(maxsize=SPLIT_PAGES)
def _sentences(page: PageText) -> tuple[Sentence, ...]:
    return *split_sentences(page.user_input), *split_sentences(page.agent_response)


def _page_counts(pages: Sequence[Sequence[Sentence]]) -> Counter[str]:
    """Return for each telling stem in how many pages it stands, in the order of first use."""
    telling = (dict.fromkeys(chain.from_iterable([sentence.telling for sentence in page])) for page in pages)
    return Counter(chain.from_iterable(telling))


def _chained(old: Sequence[Sentence], new: Sequence[Sentence]) -> Sequence[Sentence]:
    """Return a chain's overview with a new page: the old one's sentence that is nearest to it, and the page's best.

    A chain's first page gives both sentences.
    """
    if not new:
        return old
    weights = Counter(chain.from_iterable([sentence.stems for sentence in (*old, *new)]))
    best = central(new, weights)
    if not old:
        return sorted(best[:2], key=new.index)
    anchor = central(old, weights)[0]
    return [anchor, *[sentence for sentence in best if sentence.text != anchor.text][:1]]


def _joined(sentences: list[str]) -> str:
    """Join up to two sentences to at most OVERVIEW_CHARS; where they are too long each keeps at least its half."""
    if len(sentences) < 2:
        return shorten("".join(sentences), OVERVIEW_CHARS)
    room = OVERVIEW_CHARS - 1
    first = shorten(sentences[0], max(room // 2, room - len(sentences[1])))
    return f"{first} {shorten(sentences[1], room - len(first))}"


def _topic(
    indices: list[int], pages: list[tuple[Sentence, ...]], mine: Counter[str], everywhere: Counter[str]
) -> Topic:
    """Describe the pages of a topic; ``mine`` counts those with each stem, ``everywhere`` the batch's pages.

    A word weighs as many pages as it stands in, times the share of its pages that belong to the topic.
    """
    sentences = list(chain.from_iterable(pages))
    weights = {stem: count * count / everywhere[stem] for stem, count in mine.items()}
    keywords = _keywords(sentences, weights)
    return Topic(", ".join(keywords[:THEME_KEYWORDS]), keywords, _content(sentences, weights), indices)


def _keywords(sentences: list[Sentence], weights: dict[str, float]) -> list[str]:
    """Return the words that weigh most, a use counting for a tenth of a page and a name for a fifth more."""
    uses = Counter(chain.from_iterable([sentence.stems for sentence in sentences]))
    scores = {stem: weight + uses[stem] / 10 for stem, weight in weights.items()}
    likely = nlargest(2 * KEYWORDS, scores, key=scores.__getitem__)
    shown = surfaces(sentences, likely)
    likely.sort(key=lambda stem: scores[stem] * (1.2 if shown[stem][0].isupper() else 1.0), reverse=True)
    return [shown[stem] for stem in likely[:KEYWORDS]]


def _content(sentences: list[Sentence], weights: dict[str, float]) -> str:
    """Return the most central sentences that fit, in the order they were written; empty where there are none."""
    best = central(sentences, weights)[: 2 * CONTENT_SENTENCES]
    chosen: list[Sentence] = []
    room = CONTENT_CHARS
    for sentence in best:
        if len(sentence.text) <= room and len(chosen) < CONTENT_SENTENCES:
            chosen.append(sentence)
            room -= len(sentence.text) + 1
    if best and not chosen:
        return shorten(best[0].text, CONTENT_CHARS)
    return " ".join(sentence.text for sentence in sorted(chosen, key=sentences.index))
