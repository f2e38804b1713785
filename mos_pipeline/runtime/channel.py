"""The two ways between the main process and one worker: a queue to it, a pipe back.

One channel per worker and generation, thrown away with it: a reader killed inside ``Queue.get`` keeps the queue's
lock for ever, so a queue is never handed on. Both directions carry msgpack bytes.

Who may hang, and what prevents it: the queue's feeder thread blocks on a full pipe while its worker is busy; the main
process keeps no read end, so the worker's death frees it (EPIPE). The main process never blocks on half a report: it
reads what is there, without waiting for the rest of a worker that may have been stopped in the midst of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from typing import Any

import msgpack

from mos_pipeline.runtime.start import semaphores_named, spawn_context, unlink_semaphores

__all__ = ["Channel", "WorkerEnd"]

STOP = b""
READ_BYTES = 1 << 16


@dataclass(slots=True)
class WorkerEnd:
    """What the worker gets: the queue it reads and the pipe it reports through."""

    queue: Queue[bytes]
    pipe: Connection

    @property
    def incoming(self) -> int:
        """The file descriptor that can be read when the queue has something."""
        reader: Connection = self.queue._reader  # type: ignore[attr-defined]
        return reader.fileno()


class Channel:
    """The main process's end."""

    def __init__(self) -> None:
        from mos_pipeline.runtime.shared_memory import (
            semaphore_prefix,
        )  # late: workers, which pass here, need none of it

        with semaphores_named(semaphore_prefix()):
            self._queue: Queue[bytes] = spawn_context.Queue()
        # Private: makes the feeder thread end quietly when the worker is gone.
        self._queue._ignore_epipe = True  # type: ignore[attr-defined]
        self.pipe, self._worker_pipe = spawn_context.Pipe(duplex=False)
        os.set_blocking(self.pipe.fileno(), False)
        # Reports follow one another without framing: msgpack knows where each of them ends.
        self._unpacker = msgpack.Unpacker(
            raw=False, unicode_errors="surrogatepass", strict_map_key=False, max_buffer_size=0
        )

    def worker_end(self) -> WorkerEnd:
        """Return what to pass among the worker's arguments."""
        return WorkerEnd(self._queue, self._worker_pipe)

    def drop_worker_end(self) -> None:
        """Close this process's copies of the worker's ends; call it once the worker has been started."""
        self._queue._reader.close()  # type: ignore[attr-defined]
        self._worker_pipe.close()

    def send(self, message: bytes) -> None:
        """Hand ``message`` to the feeder thread; never blocks."""
        self._queue.put(message)

    def send_stop(self) -> None:
        """Ask the worker to finish what it has accepted and to exit."""
        self._queue.put(STOP)

    def receive(self) -> list[list[Any]]:
        """Return the reports that have arrived since the last call, perhaps none; never blocks.

        Raises:
            EOFError: the worker is gone and everything it said in full has been returned.
        """
        try:
            data = os.read(self.pipe.fileno(), READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        self._unpacker.feed(data)
        return list(self._unpacker)

    def close(self) -> None:
        """Let go of the queue, its feeder thread and the pipe; nothing waits for unsent messages."""
        self._queue.cancel_join_thread()
        self._queue.close()
        feeder = self._queue._thread  # type: ignore[attr-defined]
        if feeder is not None:
            feeder.join(timeout=1.0)
        if feeder is None or not feeder.is_alive():
            self._queue._writer.close()  # type: ignore[attr-defined]
        self._queue._reader.close()  # type: ignore[attr-defined]
        self.pipe.close()
        self._worker_pipe.close()
        unlink_semaphores(self._queue)
