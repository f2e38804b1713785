"""What an owner's process notes for those who read beside it: lines in a file that is only appended to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["Known", "Notes", "known", "user_of"]

USERS = 3


def user_of(number: int) -> str:
    """Return whose the page with this number is."""
    return f"user{number % USERS}"


class Notes:
    """The owner's side: each line is there before the call that writes it returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def accepted(self, number: int) -> None:
        """Note that ``add`` has returned."""
        self._write("accepted", number)

    def forgetting(self, number: int) -> None:
        """Note that ``forget`` is about to be called."""
        self._write("forgetting", number)

    def forgotten(self, number: int) -> None:
        """Note that ``forget`` has returned."""
        self._write("forgotten", number)

    def _write(self, what: str, number: int) -> None:
        os.write(self._file, f"{what} {number}\n".encode())


class Known(NamedTuple):
    """Page numbers."""

    accepted: set[int]
    forgetting: set[int]
    forgotten: set[int]


def known(path: Path) -> Known:
    """Return what was noted so far."""
    found = Known(set(), set(), set())
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            what, number = line.split()
            found._asdict()[what].add(int(number))
    return found
