"""What a check says."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["Area", "Finding", "Level", "note", "ok", "problem"]


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # works, and may surprise
    PROBLEM = "problem"  # does not work, or will not for long


class Area(StrEnum):
    """What it is about."""

    MACHINE = "machine"
    CONFIG = "config"
    MODEL = "model"
    STORE = "store"


class Finding(NamedTuple):
    """One thing that was looked at; ``mend`` says what to do about it, and is empty where nothing is to be done."""

    area: Area
    what: str
    level: Level
    found: str
    mend: str = ""


def ok(area: Area, what: str, found: str) -> Finding:
    """Return what is well."""
    return Finding(area, what, Level.OK, found)


def note(area: Area, what: str, found: str, mend: str) -> Finding:
    """Return what works and may surprise."""
    return Finding(area, what, Level.NOTE, found, mend)


def problem(area: Area, what: str, found: str, mend: str) -> Finding:
    """Return what does not work."""
    return Finding(area, what, Level.PROBLEM, found, mend)
