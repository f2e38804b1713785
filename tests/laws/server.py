"""The owner's side of ``tests.laws.owner``: ``python -m tests.laws.server``.

It reads calls from its standard input, (name, arguments, named arguments), and answers (result, error), pickled.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections import Counter
from itertools import pairwise
from typing import Any, BinaryIO

from mos_pipeline import MemoryPipeline
from tests.laws.owner import look
from tests.support import all_pages, open_fake

__all__: list[str] = []


def _check(memory: MemoryPipeline) -> None:
    """Check the laws of mid- and long-term memory; everything is worked off."""
    stats, state = memory.stats(), memory._engine.state
    assert (stats.backlog_pages, stats.backlog_bytes, stats.unwritten, stats.in_flight_texts) == (0, 0, 0, 0)
    assert not stats.set_aside
    assert not stats.damage
    pages, rows = all_pages(memory), 0
    for scope in state.scopes:
        view = look(memory, scope.user_id, scope.assistant_id)
        mine = {page.page_id for page in view.pages}
        placed = Counter(page_id for session in view.sessions for page_id in session.page_ids)
        assert set(placed.values()) <= {1}, "a page is in two sessions"
        assert set(placed) <= mine, "a session holds a page that is not the user's"
        assert all(session.page_ids and session.summary for session in view.sessions)
        assert all(fact.page_ids for fact in view.facts)
        assert all(set(fact.page_ids) <= mine for fact in view.facts)
        rows += len(view.sessions) + len(view.facts)
        _check_links(memory, state.pages.seqs_of(scope.number).tolist())
        assert not scope.remake, "a profile waits to be made again"
        assert not scope.gaps, "pages wait for their batch"
    assert stats.pages == len(pages)
    assert stats.vectors == len(pages) + rows
    assert stats.users == len(memory.users()) == len({page.user_id for page in pages})
    report = memory.verify()
    assert report.ok, report.problems
    assert report.pages == len(pages)


def _check_links(memory: MemoryPipeline, seqs: list[int]) -> None:
    chains = memory._engine.state.chains
    for seq in seqs:
        chain = chains.pages_of(chains.chain_of(seq))
        assert seq in chain
        assert set(chain) <= set(seqs), "a link to a page that is not there, or is another user's"
        assert all(earlier < later for earlier, later in pairwise(chain))


class _Server:
    """Answers calls in the owner's process."""

    def __init__(self) -> None:
        self._memory: MemoryPipeline | None = None

    def answer(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if name == "open":
            self._memory = open_fake(*args, **named)
            return None
        assert self._memory is not None
        match name:
            case "look":
                return look(self._memory, *args)
            case "check":
                return _check(self._memory)
            case "all_pages":
                return all_pages(self._memory)
            case "get_all":
                return [self._memory.get(page_id) for page_id in args[0]]
        return getattr(self._memory, name)(*args, **named)


def _serve(calls: BinaryIO, answers: BinaryIO) -> None:
    server = _Server()
    while True:
        try:
            name, args, named = pickle.load(calls)
        except EOFError:
            return
        answer: tuple[Any, Exception | None]
        try:
            answer = server.answer(name, args, named), None
        except Exception as error:  # noqa: BLE001 - told to the test
            error.add_note(traceback.format_exc())
            answer = None, error
        answers.write(pickle.dumps(answer))
        answers.flush()


if __name__ == "__main__":
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints must not end up among the answers
    _serve(sys.stdin.buffer, out)
