"""What the fault tests share: pages under way, what must hold afterwards, and a look at processes."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

from mos_pipeline import MemoryPipeline, Page
from mos_pipeline.errors import ClosedError
from mos_pipeline.messages import embedded_text
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.scanning import Frame
from mos_pipeline.store.segments import SegmentReader
from tests.leftovers import leftovers, present
from tests.support import all_pages, open_fake, page_text

__all__ = [
    "PATIENCE_S",
    "Load",
    "check_consistent",
    "check_found",
    "check_order",
    "check_reopened",
    "fill",
    "frames_of",
    "nothing_left",
    "until",
]

PATIENCE_S = 90.0  # the machine may be busy: a deadline here only keeps a hanging test from hanging for ever

Accepted = Mapping[str, Sequence[str]]


def until(condition: Callable[[], object], what: str, *, pause_s: float = 0.01) -> None:
    """Wait until ``condition`` holds; fail with ``what`` where it does not come to that."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {PATIENCE_S} s: {what}"
        time.sleep(pause_s)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Check that the block leaves no child, no block of shared memory, no open file and no thread."""
    resource_tracker.ensure_running()  # it lives as long as this process, and holds one pipe
    before = present()
    yield
    until(lambda: not leftovers(before), f"nothing is left that was not among {before}")


def fill(memory: MemoryPipeline, pages: int, users: Sequence[str] = ("ann", "ben", "cem"), first: int = 0) -> None:
    """Add numbered pages, the users in turn."""
    for number in range(first, first + pages):
        memory.add(users[number % len(users)], *page_text(number))


class Load:
    """Threads that add pages in bursts until they are stopped, and note what was accepted.

    Each thread has users of its own, so that their order of acceptance is known.
    """

    def __init__(
        self, memory: MemoryPipeline, seed: int, *, threads: int = 2, pause_s: float = 0.3, until_closed: bool = False
    ) -> None:
        self.accepted: dict[str, list[str]] = {}
        self._memory = memory
        self._pause_s = pause_s
        self._until_closed = until_closed
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(seed, number)) for number in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._errors

    def _run(self, seed: int, thread: int) -> None:
        rng = random.Random(f"{seed} {thread}")
        number = (10 * seed + thread) * 1_000_000  # texts that no other load has
        try:
            while not self._stop.is_set():
                for _ in range(rng.choice((1, 2, 9, 20))):
                    user = f"user {thread} {rng.randrange(4)}"
                    page_id = self._memory.add(user, *page_text(number))
                    self.accepted.setdefault(user, []).append(page_id)
                    number += 1
                self._stop.wait(rng.random() * self._pause_s)
        except ClosedError as error:
            if not self._until_closed:
                self._errors.append(error)
        except BaseException as error:
            self._errors.append(error)
            raise


def check_order(memory: MemoryPipeline, accepted: Accepted, *, unnoted: int = 0) -> None:
    """Check that every accepted page is there exactly once and in its user's order.

    Up to ``unnoted`` pages of the whole store may be there though nobody noted them, each the last of its user.
    """
    extra = 0
    for user in {*memory.users(), *accepted}:
        found, noted = [page.page_id for page in all_pages(memory, user)], list(accepted.get(user, ()))
        assert found[: len(noted)] == noted, f"{user}: an accepted page is missing, doubled or out of order"
        extra += len(found) - len(noted)
    assert extra <= unnoted
    counts = Counter(page.page_id for page in all_pages(memory))
    assert not counts or max(counts.values()) == 1
    assert sum(counts.values()) == sum(map(len, accepted.values())) + extra


def check_consistent(memory: MemoryPipeline) -> None:
    """Check sessions and chains: each page in one session at most, neighbours of one user, no session without summary.

    To be called when everything is worked off.
    """
    state = memory._engine.state
    for scope in state.scopes:
        seqs = state.pages.seqs_of(scope.number).tolist()
        placed = [seq for session in scope.mid_term.sessions for seq in session.seqs]
        assert sorted(placed) == sorted(set(placed)), "a page is in two sessions"
        assert set(placed) == set(seqs[: scope.given]) - set(scope.aside)
        for session in scope.mid_term.sessions:
            assert session.summary and session.row >= 0, "a session without summary or vector"
        for seq in seqs:
            chain = state.chains.pages_of(state.chains.chain_of(seq))
            assert seq in chain
            assert chain == sorted(chain)
            assert set(chain) <= set(seqs), "a chain of two users"


def check_found(memory: MemoryPipeline, pages: Sequence[Page], *, dense: bool = True) -> None:
    """Check that each page is the best answer to its own text: by its words, and by its vector."""
    until(lambda: memory.stats().restored, "everything is read")
    timeout = PATIENCE_S if dense else 0.1
    for page in pages:
        hit = memory.retrieve(page.user_id, page.user_input.split()[0], k=1, timeout=timeout).pages[0]
        assert hit.page == page, "not found by its words"
        assert hit.words > 0
        if dense:
            text = embedded_text(page.user_input, page.agent_response)
            hit = memory.retrieve(page.user_id, text, k=1, timeout=timeout).pages[0]
            assert hit.page == page
            assert hit.dense is not None
            assert hit.dense > 0.98, "not found by its vector"


def check_reopened(path: Path, accepted: Accepted, *, unnoted: int = 0, sample: int = 5, seed: int = 0) -> None:
    """Open the store with workers, let everything be worked off, and check all that must hold."""
    with nothing_left(), open_fake(path) as memory:
        check_order(memory, accepted, unnoted=unnoted)
        memory.wait_idle(PATIENCE_S)
        check_order(memory, accepted, unnoted=unnoted)
        stats = memory.stats()
        assert (stats.backlog_pages, stats.backlog_bytes, stats.unwritten) == (0, 0, 0)
        assert not stats.set_aside
        assert not stats.damage
        check_consistent(memory)
        pages = all_pages(memory)
        check_found(memory, random.Random(seed).sample(pages, min(sample, len(pages))))
        report = memory.verify()
        assert report.ok, report.problems
        assert report.pages == len(pages)


def frames_of(path: Path, kind: FrameKind) -> list[tuple[Path, Frame]]:
    """Return a closed store's frames of one kind, with the files that they are in."""
    folder = StoreFolder(path)
    reader = SegmentReader(folder)
    found = [
        (folder.segment(number), item)
        for number in Manifest.load(folder).segments
        for item in reader.scan(number)
        if isinstance(item, Frame) and item.kind == kind
    ]
    reader.close()
    return found
