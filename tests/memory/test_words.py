from __future__ import annotations

import re
import threading
import unicodedata
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.memory import words
from mos_pipeline.memory.words import UNIT, analyse, analyse_page, analyser_id, query_terms, terms
from mos_pipeline.messages import PageRecord
from tests.memory import law

chat = st.text(
    st.characters() | st.sampled_from("abc stuvw THE is é ß Ⅷ 東京 カナ ’—_'0123456789.\u0301\ud800"), max_size=80
)


@law
@given(chat)
def test_hashes_and_counts_are_those_of_the_terms(text: str) -> None:
    hashes, counts = analyse(text)
    expected = Counter(zlib.crc32(term.encode("utf-8", "surrogatepass")) for term in terms(text))
    assert hashes.tolist() == sorted(expected)
    assert counts.tolist() == [min(expected[term_hash], 255) for term_hash in sorted(expected)]
    assert (hashes.dtype, counts.dtype) == (np.dtype(np.uint32), np.dtype(np.uint8))


def test_each_count_stands_beside_its_hash() -> None:
    text = " ".join(f"w{number} " * number for number in range(1, 30))
    expected = {zlib.crc32(f"w{number}".encode()): number for number in range(1, 30)}
    assert dict(zip(*(part.tolist() for part in analyse(text)), strict=True)) == expected


@law
@given(chat)
def test_every_text_with_a_letter_or_digit_can_be_found(text: str) -> None:
    has_word = re.search(r"\w", unicodedata.normalize("NFC", text)) is not None
    assert (len(query_terms(text)) > 0) == has_word


@law
@given(st.text(st.characters(max_codepoint=127), max_size=80))
def test_plain_text_is_split_like_any_other(text: str) -> None:
    # An accented letter sends the whole text the way of the regular expressions.
    assert terms(f"{text} élan zzz") == [term for term in terms(f"{text} zzz")[:-1] if term] + terms("élan zzz")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Running HOPES", "run hope"),
        ("cafe\u0301", "CAFÉ"),
        ("Straße", "STRASSE"),
        ("ｈｅｌｌｏ １２", "hello 12"),
        ("she’s “here”: coffee", "coffee"),
        ("coffee 🎉 — cup…", "coffee cup"),
        ("x" * 70, "x" * 64),
        ("é" * 70, "é" * 90),
    ],
)
def test_texts_that_mean_the_same_have_the_same_terms(one: str, other: str) -> None:
    assert terms(one) == terms(other)
    assert np.array_equal(query_terms(one), query_terms(other))


def test_words_keep_their_order_and_repetitions() -> None:
    assert terms("Cats chase the cat in 2024, foo_bar") == ["cat", "chase", "cat", "2024", "foo_bar"]


def test_scripts_without_spaces_are_split_into_characters() -> None:
    assert terms("東京タワー、東 and 한국 tower") == ["東", "京", "タ", "ワ", "ー", "東", "한국", "tower"]


def test_stop_words_are_dropped_only_beside_other_words() -> None:
    assert terms("What is the plan") == ["plan"]
    assert terms("To be or NOT to be") == ["to", "be", "or", "not", "to", "be"]
    assert set(query_terms("who are you")) <= set(query_terms("you are who we are"))


def test_counts_stop_at_255() -> None:
    assert analyse("echo " * 300)[1].tolist() == [255]
    assert analyse("echo " * 254)[1].tolist() == [254]


def test_a_text_without_words_has_no_terms() -> None:
    assert [len(part) for part in analyse(" … ?! \ud800")] == [0, 0]
    assert terms("") == []


def test_hashes_are_the_same_in_every_process() -> None:
    assert query_terms("coffee").tolist() == [zlib.crc32(b"coffe")]
    assert query_terms("東").tolist() == [zlib.crc32("東".encode())]


def test_the_analysers_number_follows_its_stems(monkeypatch: pytest.MonkeyPatch) -> None:
    number = analyser_id()
    assert number == analyser_id()
    monkeypatch.setattr(words, "_stems", words.WordCache(str.lower))
    analyser_id.cache_clear()
    other = analyser_id()
    analyser_id.cache_clear()
    assert other != number


def test_a_full_cache_is_emptied_and_long_words_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "CACHED_WORDS", 3)
    cache = words.WordCache(len)
    for word in ("a", "bb", "ccc", "dddd"):
        assert cache[word] == len(word)
    assert list(cache) == ["dddd"]
    assert cache["e" * 65] == 65
    assert list(cache) == ["dddd"]


def test_threads_do_not_spoil_each_others_stems(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(
        f"{stem}{ending}" for stem in ("connect", "relat", "hop", "argu") for ending in ("ing", "ed", "ions")
    )
    expected = terms(text)
    found: list[list[str]] = []

    def stem_again() -> None:
        for _ in range(50):
            words._stems.clear()
            found.append(terms(text))

    threads = [threading.Thread(target=stem_again) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(stems == expected for stems in found)
    assert len(found) == 200


def page(user: str, agent: str, timestamp: str = "", **metadata: object) -> PageRecord:
    return PageRecord("tom", "robot", user, agent, timestamp, metadata or None, None, None)


def words_of(record: PageRecord, *wanted: str) -> list[float]:
    """Return how often each of ``wanted`` counts."""
    counts = dict(zip(*(part.tolist() for part in analyse_page(record)), strict=True))
    return [counts.get(zlib.crc32(terms(word)[0].encode()), 0) / UNIT for word in wanted]


@law
@given(chat, chat)
def test_a_page_without_names_and_dates_has_the_words_of_its_texts(user: str, agent: str) -> None:
    found, expected = analyse_page(page(user, agent, "some day")), analyse(f"{user} {agent}")
    assert found[0].tolist() == expected[0].tolist()
    assert found[1].tolist() == [min(UNIT * count, 255) for count in expected[1].tolist()]


def test_speakers_are_found_where_they_speak() -> None:
    names = ["Ann Lee", "Rob"]
    assert words_of(page("tea", "Ann, milk?", speakers=names), "ann", "lee", "rob", "tea") == [2, 1, 1, 1]
    assert words_of(page("", "milk?", speakers=names), "ann", "lee", "rob") == [0, 0, 1]


@pytest.mark.parametrize("speakers", [None, "Ann", 7, [], [None, 3], {"user": "Ann"}])
def test_speakers_of_another_form_are_passed_over(speakers: object) -> None:
    assert words_of(page("tea", "milk", speakers=speakers), "ann", "tea", "milk") == [0, 1, 1]


def test_the_words_of_the_date_count_once() -> None:
    record = page("In March 2024, in March", "", "2024-03-05 10:00:00")
    assert words_of(record, "march", "2024", "5", "tuesday") == [2, 1, 1, 1]


def test_stop_words_alone_are_found_beside_a_name_and_a_date() -> None:
    record = page("who are you", "", "2024-03-05", speakers=["Ann", "Rob"])
    assert set(query_terms("who are you")) <= set(analyse_page(record)[0])
    assert words_of(record, "ann", "march") == [1, 1]


@pytest.mark.parametrize(("words", "weight"), [(1, 1.0), (40, 1.0), (80, 0.5), (320, 0.125), (5000, 0.125)])
def test_a_long_side_counts_each_word_less(words: int, weight: float) -> None:
    long = " ".join(f"w{number}" for number in range(words))
    assert words_of(page("tea", long), "tea", "w0") == [1.0, weight]
