"""Flushing for many at once: durability against a power cut costs one flush a group, not one a page."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mos_pipeline.errors import StoreError

__all__ = ["GroupSync"]


class GroupSync:
    """One thread flushes for all that wait: the first to come leads, the others find their pages already flushed."""

    def __init__(self, flush: Callable[[], int]) -> None:
        """``flush()`` flushes all that was accepted and returns the last page of it; StoreError where it can't."""
        self._flush = flush
        self._turn = threading.Condition()
        self._done = -1
        self._leading = False
        self._failure: StoreError | None = None

    def wait_for(self, seq: int) -> None:
        """Return when page ``seq`` and all before it are on the disk.

        Raises:
            StoreError: flushing failed. All who wait are told: the kernel reports lost writes once, after which
                another flush would seem to succeed.
        """
        with self._turn:
            known = self._failure
            while self._done < seq and self._leading:
                self._turn.wait()
                if self._failure is not known:
                    raise StoreError(str(self._failure))
            if self._done >= seq:
                return
            self._leading = True
        reached, failure = -1, None
        try:
            reached = self._flush()
        except StoreError as error:
            failure = error
            raise
        finally:
            with self._turn:
                self._leading = False
                self._done = max(self._done, reached)
                self._failure = failure or self._failure
                self._turn.notify_all()
