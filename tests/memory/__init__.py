"""Tests of memory as pure logic."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["law"]

law = settings(deadline=None, max_examples=80, derandomize=True)
