"""The disk fails, fills up, or becomes read-only, for a while, at the file layer: nothing that was accepted is lost."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.errors import StoreError
from tests.faults.common import PATIENCE_S, check_order
from tests.powerloss.owner import owner
from tests.support import all_pages, open_fake, page_text

CODES = (errno.EIO, errno.ENOSPC, errno.EROFS)
# A call, and a part of the path of the file that it is about.
PLACES = [
    ("open", ".journal"),
    ("posix_fallocate", ".journal"),
    ("fsync", ".journal"),
    ("fdatasync", ".journal"),
    ("unlink", ".journal"),
    ("open", ".segment"),
    ("pwrite", ".segment"),
    ("fdatasync", ".segment"),
    ("fsync", ".segment"),
    ("fsync", "/segments"),
    ("open", "MANIFEST"),
    ("pwrite", "MANIFEST"),
    ("fsync", "MANIFEST"),
    ("replace", "MANIFEST"),
]


class WornDisk:
    """Lets some calls of ``os`` on some files fail, or take their time, for as long as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, part: str, code: int | None, pause_s: float = 0.0):
        self.broken = False
        self.failures = 0
        self._part = part
        self._code = code
        self._pause_s = pause_s
        self._opens = call == "open"
        monkeypatch.setattr(os, call, self._wrapped(getattr(os, call)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            if self.broken and self._part in self._path(target) and not (self._opens and self._reads(*arguments)):
                self.failures += 1
                time.sleep(self._pause_s)
                if self._code is not None:
                    raise OSError(self._code, os.strerror(self._code))
            return real(target, *arguments, **options)

        return call

    def _path(self, target: Any) -> str:
        return os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)  # noqa: PTH115

    def _reads(self, flags: int, *_: Any) -> bool:
        return not flags & (os.O_WRONLY | os.O_RDWR)


def add(memory: MemoryPipeline, accepted: dict[str, list[str]], numbers: range, *, long: bool = False) -> int:
    """Add pages; return how many were refused. A refusal is a StoreError, and nothing else.

    A page whose flush failed may be there all the same: its caller was told that this is not known.
    """
    refused = 0
    for number in numbers:
        try:
            said, answer = page_text(number)
            page_id = memory.add("ann", said, answer + os.urandom(20_000).hex() * long)
        except StoreError:
            refused += 1
        else:
            accepted.setdefault("ann", []).append(page_id)
    return refused


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize(("call", "part"), PLACES, ids=lambda value: str(value).strip("./"))
def test_a_disk_that_fails_for_a_while_costs_nothing_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, part: str, code: int
) -> None:
    accepted: dict[str, list[str]] = {}
    disk = WornDisk(monkeypatch, call, part, code)
    power = "power" if call == "fdatasync" and part == ".journal" else "process"
    with owner(tmp_path / "store", monkeypatch, store__durability=power) as memory:
        add(memory, accepted, range(20))
        memory.wait_idle(PATIENCE_S)
        disk.broken = True
        refused = add(memory, accepted, range(100, 106), long=True)
        deadline = time.monotonic() + 10.0
        while not disk.failures and time.monotonic() < deadline:
            time.sleep(0.01)
        assert disk.failures
        assert [page.page_id for page in all_pages(memory) if page.page_id in accepted["ann"]] == accepted["ann"]
        disk.broken = False
        add(memory, accepted, range(200, 210))
        memory.wait_idle(PATIENCE_S)
        check_order_but(memory, accepted, refused)
    with open_fake(tmp_path / "store", workers=False) as memory:
        check_order_but(memory, accepted, refused)
        assert memory.verify().ok


def check_order_but(memory: MemoryPipeline, accepted: dict[str, list[str]], refused: int) -> None:
    """Check that all accepted pages are there in order, and no more than ``refused`` others."""
    found = [page.page_id for page in all_pages(memory)]
    assert [page_id for page_id in found if page_id in set(accepted["ann"])] == accepted["ann"]
    assert len(found) <= len(accepted["ann"]) + refused


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "replace"])
def test_a_disk_that_fails_during_compaction_costs_the_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    accepted: dict[str, list[str]] = {}
    with owner(tmp_path / "store", monkeypatch, store__durability="process") as memory:
        add(memory, accepted, range(30))
        gone = accepted["ann"].pop(4)
        memory.forget(page_id=gone)
        memory.wait_idle(PATIENCE_S)
        disk = WornDisk(monkeypatch, call, "MANIFEST" if call == "replace" else "0000000", code)
        disk.broken = True
        with pytest.raises((StoreError, TimeoutError)):
            memory.compact(0.3)
        assert disk.failures
        disk.broken = False
        add(memory, accepted, range(30, 40))
        memory.wait_idle(PATIENCE_S)
        memory.compact(PATIENCE_S)
        check_order(memory, accepted)
        assert memory.verify().ok
    with open_fake(tmp_path / "store", workers=False) as memory:
        check_order(memory, accepted)
        assert memory.get(gone) is None


@pytest.mark.parametrize("part", [".journal", ".segment", "MANIFEST"])
def test_a_slow_disk_costs_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    accepted: dict[str, list[str]] = {}
    disk = WornDisk(monkeypatch, "fsync" if part == "MANIFEST" else "fdatasync", part, None, pause_s=0.05)
    with owner(tmp_path / "store", monkeypatch) as memory:
        disk.broken = True
        assert not add(memory, accepted, range(12))
        memory.wait_idle(PATIENCE_S)
        assert disk.failures
        check_order(memory, accepted)


@pytest.mark.parametrize("call", ["fsync", "pwrite", "open", "replace"])
def test_a_disk_that_fails_at_the_opening_is_told_and_the_next_opening_has_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    accepted: dict[str, list[str]] = {}
    with owner(tmp_path / "store", monkeypatch) as memory:
        add(memory, accepted, range(12))
        memory.wait_idle(PATIENCE_S)
    disk = WornDisk(monkeypatch, call, "store", errno.EIO)
    disk.broken = True
    try:
        with open_fake(tmp_path / "store", workers=False) as memory:
            check_order(memory, accepted)
    except StoreError as error:
        assert "check the path, its rights and the disk" in str(error)
    disk.broken = False
    with open_fake(tmp_path / "store", workers=False) as memory:
        check_order(memory, accepted)
