"""A terminal on which text is drawn again and again in the same place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from mos_pipeline.cli.output import drop_stdout, fitted

__all__ = ["Screen"]

ENTER = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
LEAVE = "\x1b[?25h\x1b[?1049l"
HOME, CLEAR_TO_END_OF_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen:
    """Draws in place on the alternate screen for the length of a ``with``; what was drawn last is then left behind.

    On a terminal that obeys nothing (TERM is dumb) each text follows the one before.
    """

    def __init__(self, stream: TextIO) -> None:
        """Draw on ``stream``, which is a terminal."""
        self._stream = stream
        self._obeys = os.environ.get("TERM", "dumb") != "dumb"
        self._last: list[str] = []

    def __enter__(self) -> Self:
        if self._obeys:
            self._write(ENTER)
        return self

    def draw(self, lines: Sequence[str]) -> None:
        """Draw ``lines`` in the place of what was drawn before, cut to the terminal's present size."""
        size = shutil.get_terminal_size()
        # The last column stays free: some terminals go to the next line when they have filled it.
        self._last = [fitted(line, size.columns - 1) for line in lines]
        if self._obeys:
            drawn = f"{CLEAR_TO_END_OF_LINE}\r\n".join(self._last[: size.lines])
            self._write(f"{HOME}{drawn}{CLEAR_TO_END_OF_LINE}{CLEAR_BELOW}")
        else:
            self._write("\n".join([*self._last, "", ""]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._obeys:
            try:
                self._write(LEAVE + "".join(f"{line}\n" for line in self._last))
            except OSError:  # a terminal that is gone: what ended the block is told
                drop_stdout()

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
