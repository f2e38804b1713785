from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline import config
from mos_pipeline.errors import InputError
from mos_pipeline.memory.long_term import Fact, FactBase, LongTerm, Profile
from mos_pipeline.messages import decode, encode
from tests.memory import law

LONG = "Is a baker in Ghent. Likes sourdough and night trains."


def everything(base: FactBase) -> list[object]:
    return [fact.as_plain() for fact in base.facts]


# facts


def test_the_same_statement_again_is_one_fact() -> None:
    base = FactBase(10)
    fact, new = base.add("I adopted a beagle.", "2024-05-01", [3])
    assert new
    again, new = base.add(" i adopted  a BEAGLE!", "2024-06-01", [7])
    assert (again, new, len(base)) == (fact, False, 1)
    assert (fact.text, fact.timestamp, fact.seqs.tolist()) == ("I adopted a beagle.", "2024-06-01", [3, 7])
    assert base.find("I ADOPTED A BEAGLE") is fact
    assert base.find("I adopted two beagles.") is None


@pytest.mark.parametrize(("one", "other"), [("👍", "🎉"), ("...", "!!!"), ("A b", "Ab")])
def test_different_statements_are_two_facts(one: str, other: str) -> None:
    base = FactBase(10)
    assert [base.add(text, "t", [1])[1] for text in (one, other)] == [True, True]


def test_the_newest_fact_is_the_one_stated_on_the_latest_page() -> None:
    base = FactBase(2)
    for text, seq in (("a", 5), ("b", 3), ("c", 9)):
        base.add(text, f"day {seq}", [seq])
    assert [fact.text for fact in base.facts] == ["b", "a", "c"]
    base.merge(1, [12], "day 12")
    assert [(fact.text, fact.timestamp) for fact in base.facts] == [("a", "day 5"), ("c", "day 9"), ("b", "day 12")]
    assert [fact.text for fact in base.evict()] == ["a"]
    assert (base.evict(), base.get(0), base.find("a")) == ([], None, None)


def test_ids_are_never_used_again() -> None:
    base = FactBase(1)
    base.add("a", "t", [1])
    assert [fact.fact_id for fact in base.remove_page(1)] == [0]
    base = FactBase.from_plain(base.as_plain(), 1)
    assert base.add("a", "t", [1])[0].fact_id == 1


def test_a_forgotten_page_takes_its_words_along() -> None:
    base = FactBase(10)
    base.add("I adopted a beagle.", "day 1", [1])
    base.add("I have two brothers.", "day 2", [2])
    base.add("I have two brothers.", "day 4", [4])
    base.merge(0, [5], "day 5")  # "I've adopted a beagle."
    assert [fact.text for fact in base.remove_page(1)] == ["I adopted a beagle."]
    assert base.remove_page(4) == []
    assert [(fact.text, fact.timestamp) for fact in base.facts] == [("I have two brothers.", "day 2")]
    assert base.remove_page(9) == []
    assert len(base.remove_page(2)) == 1
    assert len(base) == 0


def test_a_page_without_a_fact_or_a_fact_without_a_page_is_refused() -> None:
    base = FactBase(10)
    with pytest.raises(InputError, match="name the pages"):
        base.add("a", "t", [])
    with pytest.raises(InputError, match="no fact 3"):
        base.merge(3, [1], "t")
    assert (len(base), base.add("a", "t", [0])[0].fact_id) == (0, 0)


steps = st.lists(
    st.tuples(st.sampled_from(["add", "merge", "remove", "evict", "snapshot"]), st.integers(0, 7), st.integers(0, 9)),
    max_size=40,
)


@law
@given(steps)
def test_facts_agree_with_a_plain_model(history: list[tuple[str, int, int]]) -> None:
    base, model = FactBase(3), dict[int, tuple[str, dict[int, bool]]]()
    for step, which, seq in history:
        match step:
            case "add":
                fact, new = base.add(f"fact {which}", f"day {seq}", [seq])
                assert new == all(text != f"fact {which}" for text, _ in model.values())
                model.setdefault(fact.fact_id, (fact.text, {}))[1][seq] = True
            case "merge" if which in model:
                model[which][1].setdefault(seq, base.merge(which, [seq], f"day {seq}").fact_id != which)
            case "remove":
                gone = [key for key, (_, seqs) in model.items() if seqs.pop(seq, False) and not any(seqs.values())]
                assert sorted(fact.fact_id for fact in base.remove_page(seq)) == gone
                model = {key: value for key, value in model.items() if key not in gone}
            case "evict":
                oldest = sorted(model, key=lambda key: (max(model[key][1]), key))[: max(0, len(model) - 3)]
                assert [fact.fact_id for fact in base.evict()] == oldest
                model = {key: value for key, value in model.items() if key not in oldest}
            case "snapshot":
                base = FactBase.from_plain(decode(encode(base.as_plain())), 3)
        facts = {fact.fact_id: (fact.text, fact.seqs.tolist(), fact.timestamps) for fact in base.facts}
        assert facts == {
            key: (text, sorted(seqs), [f"day {at}" for at in sorted(seqs)]) for key, (text, seqs) in model.items()
        }


# the profile


@pytest.mark.parametrize("text", ["", "  \n", "None", " none ", "Likes tea."])
def test_a_profile_is_not_replaced_by_next_to_nothing(text: str) -> None:
    profile = Profile()
    assert profile.update(LONG, "day 1", [4, 2])
    assert not profile.update(text, "day 2", [9])
    assert (profile.text, profile.updated, profile.seqs.tolist()) == (LONG, "day 1", [2, 4])


@pytest.mark.parametrize(("text", "taken"), [("", False), ("None", False), ("Likes tea.", True)])
def test_the_first_profile_may_be_short(text: str, taken: bool) -> None:
    profile = Profile()
    assert profile.update(text, "day 1") is taken
    assert profile.text == (text if taken else "")


def test_a_new_profile_is_made_from_the_old_ones_pages_too() -> None:
    profile = Profile()
    profile.update(LONG, "day 1", [4, 2])
    assert profile.update(f"  {LONG} Has a dog.\n", "day 2", [2, 7])
    assert (profile.text, profile.updated, profile.seqs.tolist()) == (f"{LONG} Has a dog.", "day 2", [2, 4, 7])
    profile.clear()
    assert (profile.text, profile.updated, profile.seqs.tolist()) == ("", "", [])


# all of it


def test_a_forgotten_page_leaves_nothing_behind() -> None:
    memory = LongTerm(config.LongTerm(knowledge_capacity=5))
    memory.profile.update(LONG, "day 1", [1, 2, 3])
    mine, _ = memory.knowledge.add("I bake.", "day 2", [2])
    its, _ = memory.assistant_knowledge.add("I recommended a starter.", "day 2", [2])
    assert memory.remove_page(9) == ([], [], [])
    assert memory.remove_page(2) == ([mine], [its], [1, 3])
    assert (memory.profile.text, len(memory.knowledge), len(memory.assistant_knowledge)) == ("", 0, 0)


def test_it_is_restored_as_it_was() -> None:
    settings = config.LongTerm(knowledge_capacity=5)
    memory = LongTerm(settings)
    memory.profile.update(LONG, "day 1", [1, 2, 3])
    memory.knowledge.add("I bake.", "day 2", [2])
    memory.assistant_knowledge.add("I recommended a starter.", "day 2", [2])
    memory.since_promotion = 7
    memory.knowledge.facts[0].row = 8
    again = LongTerm.from_plain(decode(encode(memory.as_plain())), settings)
    assert again.as_plain() == memory.as_plain()
    assert (again.profile.text, again.since_promotion) == (LONG, 7)
    assert [fact.row for fact in again.knowledge.facts] == [-1]
    assert isinstance(again.knowledge.get(0), Fact)
