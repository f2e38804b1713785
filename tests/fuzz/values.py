"""Elements of input files that are nearly what they should be: those of the corpus, changed in a few places."""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.fuzz.inputs import LINES, corpus

__all__ = ["ANYTHING", "as_json", "changed", "elements", "file_of", "texts"]

_KEYS = """
user_id user user_input agent_response timestamp metadata page_id assistant_id id conversation_id title messages
conversations role from content value type text created_at create_time tool_calls mapping current_node parent message
author content_type parts uuid name account chat_messages sender attachments files sample_id conversation speaker_a
speaker_b session_1 session_01 session_2 session_1_date_time session_9999999999 speaker dia_id blip_caption memory
results mem0 reason source place line format raw n1 n3 n9 mos_pipeline.states is_visually_hidden_from_conversation
"""
_WORDS = """
ann user assistant system tool human gpt nobody text multimodal_text jsonl messages chatgpt claude locomo mem0
quarantine n1 n2 n3 n5 n9 Ann Ben session
"""
_KEY = st.sampled_from(_KEYS.split())
texts = st.one_of(
    st.text(max_size=6),
    st.sampled_from(_WORDS.split()),
    st.sampled_from(
        ["", " ", "\0", "\ud83d", "\ude00", "\\ud83d\ude00", "\ud83d\\ude00", "a\ud800\udc00", "\ufeff", "1e5"]
    ),
)


def _nested(levels: int, inner: Any, *, maps: bool) -> Any:
    for _ in range(levels):
        inner = {"a": inner} if maps else [inner]
    return inner


_SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 9),
    st.sampled_from([1 << 31, 1 << 53, 1 << 63, -(1 << 63) - 1, 1 << 64, 10**25, 10**400, 10**15, 10**10]),
    st.floats(),
    texts,
)
ANYTHING: st.SearchStrategy[Any] = st.one_of(
    texts,
    st.recursive(
        _SCALAR,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEY | texts, inner, max_size=4),
        max_leaves=10,
    ),
    st.builds(_nested, st.sampled_from([40, 88, 97, 140, 600]), _SCALAR, maps=st.booleans()),
)


class _Edit(NamedTuple):
    steps: list[int]  # the way to a value: a child's number at each depth, modulo how many there are
    kind: str
    key: str
    value: Any


_KINDS = ["replace"] * 4 + ["remove", "rename", "add", "twice", "wrap", "repeat"]
_EDITS = st.lists(
    st.builds(_Edit, st.lists(st.integers(0, 7), max_size=6), st.sampled_from(_KINDS), _KEY | texts, ANYTHING),
    max_size=3,
)


class _Twice(dict[str, Any]):
    """An object that has its first key once more at its end, with another value."""

    other: Any = None

    def items(self) -> list[tuple[str, Any]]:  # type: ignore[override]
        pairs = list(super().items())
        return [*pairs, *((name, self.other) for name, _ in pairs[:1])]


def elements(name: str) -> list[dict[str, Any]]:
    """Return the objects that a file of the corpus holds, one on each line or in its array."""
    data = corpus(name)
    if name in LINES:
        return [json.loads(line) for line in data.splitlines() if line.strip()]
    found = json.loads(data)
    if isinstance(found, dict):
        found = found.get("results", [found])
    return list(found)


def changed(name: str) -> st.SearchStrategy[Any]:
    """Return elements of a file of the corpus after a few changes; they may also be no objects any more."""
    return st.builds(_changed, st.sampled_from(elements(name)), _EDITS)


def _changed(element: Any, edits: list[_Edit]) -> Any:
    root = [copy.deepcopy(element)]
    for edit in edits:
        _apply(root, edit)
    return root[0] if root else None


def _apply(root: list[Any], edit: _Edit) -> None:
    holder, at = root, 0
    for step in edit.steps:
        inner = holder[at]
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else []
        if not keys:
            break
        holder, at = inner, keys[step % len(keys)]
    found = holder[at]
    match edit.kind:
        case "replace":
            holder[at] = edit.value
        case "wrap":
            holder[at] = [found]
        case "remove" if holder is not root:
            del holder[at]
        case "rename" if isinstance(holder, dict):
            holder[edit.key] = holder.pop(at)
        case "repeat" if isinstance(holder, list) and holder is not root:
            holder.insert(at, found)
        case "add" if isinstance(found, dict):
            found[edit.key] = edit.value
        case "twice" if isinstance(found, dict):
            holder[at] = _Twice(found)
            holder[at].other = edit.value


def as_json(value: Any, *, ascii_only: bool = True) -> bytes:
    """Return ``value`` as JSON, as Python writes it; half a pair of surrogates is no UTF-8, unless it is escaped."""
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def file_of(name: str, found: list[Any], *, ascii_only: bool = True) -> bytes:
    """Return a file of the same layout as that of the corpus, with these elements."""
    if name == "chat.json":
        return as_json(found[0], ascii_only=ascii_only).replace(b"{", b"{\n", 1)
    written = [as_json(element, ascii_only=ascii_only) for element in found]
    if name in LINES:
        return b"".join(element + b"\n" for element in written)
    inner = b"[" + b",\n".join(written) + b"]"
    return b'{"results": ' + inner + b"}" if name == "memories.json" else inner
