from __future__ import annotations

import inspect
import re

import pytest

from mos_pipeline import errors

CLASSES: dict[str, type[Exception]] = {
    name: thing
    for name, thing in vars(errors).items()
    if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__ == errors.__name__
}
LEAVES = sorted(set(CLASSES) - {base.__name__ for thing in CLASSES.values() for base in thing.__bases__})


def drawn() -> dict[str, tuple[str | None, str]]:
    """Return what the docstring draws: each class with the one it hangs from, and the words beside it."""
    tree: dict[str, tuple[str | None, str]] = {}
    above: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    (?P<lines>[ │├└─]*)(?P<name>\w+Error)(?P<words>.*)", line)
        if match:
            depth = len(match["lines"]) // 4
            above[depth:] = [match["name"]]
            tree[match["name"]] = (above[depth - 1] if depth else None, match["words"].strip())
    return tree


def test_the_drawing_names_every_class_once() -> None:
    assert drawn().keys() == CLASSES.keys()
    text = inspect.cleandoc(errors.__doc__ or "")
    assert all(len(re.findall(rf"\b{name}\b", text)) == 1 for name in CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_hangs_where_it_is_drawn(name: str) -> None:
    parent, _ = drawn()[name]
    bases = [base.__name__ for base in CLASSES[name].__bases__ if base.__name__ in CLASSES]
    assert bases == ([parent] if parent else [])


@pytest.mark.parametrize("name", CLASSES)
def test_the_drawing_tells_the_builtin_kinds(name: str) -> None:
    _, words = drawn()[name]
    builtin = {base.__name__ for base in CLASSES[name].__bases__} - CLASSES.keys() - {"Exception"}
    assert set(re.findall(r"also an? (\w+)", words)) == builtin


def test_the_root_catches_everything_and_is_no_builtin_kind() -> None:
    assert all(issubclass(thing, errors.MosError) for thing in CLASSES.values())
    assert errors.MosError.__bases__ == (Exception,)


def test_all_is_sorted_and_complete() -> None:
    assert errors.__all__ == sorted(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_is_explained_and_carries_its_message(name: str) -> None:
    thing = CLASSES[name]
    assert (inspect.getdoc(thing) or "").split("\n")[0].endswith(".")
    assert thing.__doc__ != thing.__bases__[0].__doc__
    assert str(thing("what happened")) == "what happened"


def test_a_locked_store_names_its_owner() -> None:
    assert errors.StoreLockedError("owned by 12", pid=12).pid == 12
    assert errors.StoreLockedError("owned").pid is None


def test_leaves_do_not_catch_one_another() -> None:
    for name in LEAVES:
        caught = [other for other in LEAVES if issubclass(CLASSES[name], CLASSES[other])]
        assert caught == [name]
