"""Pages on their way into a store: some dozens at a time, each answered for before it counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.left_out import LeftOut, refused
from mos_pipeline.errors import BackpressureError, InputError

if TYPE_CHECKING:
    from mos_pipeline.cli.opening import Memory
    from mos_pipeline.ingest import SourceRecord
    from mos_pipeline.messages import Added, SourceMark

__all__ = ["Sender"]

# Beside an owner a batch is a message: large enough for its way to cost little, and small enough for nobody to wait.
BATCH_PAGES = 64
BATCH_BYTES = 256 << 10


class Sender:
    """Gathers records, and adds them in batches; counts in the summary what became of them."""

    def __init__(self, memory: Memory, assistant: str, left_out: LeftOut, no_room: Callable[[], None]) -> None:
        """Add to ``memory``; ``no_room()`` is called, and may raise, while the backlog takes nothing."""
        self._memory = memory
        self._assistant = assistant
        self._left_out = left_out
        self._no_room = no_room
        self._records: list[SourceRecord] = []
        self._pages: list[dict[str, Any]] = []
        self._bytes = 0

    def put(self, record: SourceRecord, mark: SourceMark) -> None:
        """Take a record; with it a batch may be full, which is then added.

        Raises:
            MosError: as from ``flush``.
        """
        self._records.append(record)
        self._pages.append(
            {
                "user_id": record.user_id,
                "user_input": record.user_input,
                "agent_response": record.agent_response,
                "assistant_id": self._assistant if record.assistant_id is None else record.assistant_id,
                "timestamp": record.timestamp,
                "metadata": record.metadata,
                "page_id": record.page_id,
                "source": mark,
            }
        )
        self._bytes += max(len(record.raw), len(record.user_input) + len(record.agent_response))
        if len(self._records) >= BATCH_PAGES or self._bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Add what was gathered.

        Raises:
            InputError: a record can't be taken, and that is the end.
            MosError: as from ``add_batch``; what was answered for is counted.
        """
        while self._records:
            try:
                answers = self._memory.add_batch(self._pages, timeout=0.0, stop=self._left_out.stop)
            except BackpressureError:
                self._no_room()
                continue
            answered = self._records[: len(answers)]
            del self._records[: len(answers)], self._pages[: len(answers)]
            self._count(answers)
            for record, answer in zip(answered, answers, strict=True):
                if answer.refused is not None:
                    self._left_out.record(refused(record, InputError(answer.refused)))
        self._bytes = 0

    def _count(self, answers: list[Added]) -> None:
        summary = self._left_out.summary
        new = sum(answer.new for answer in answers)
        there = sum(answer.refused is None for answer in answers) - new
        summary.accepted += new
        summary.already_there += there
        summary.read += new + there
