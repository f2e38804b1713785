"""What the command line's exit codes mean."""

from __future__ import annotations

from enum import IntEnum

from mos_pipeline.errors import (
    BackpressureError,
    ConfigError,
    DeadlineError,
    InputError,
    MosError,
    StoreError,
    WorkerError,
)

__all__ = ["ExitCode", "exit_code"]


class ExitCode(IntEnum):
    """How a command ended; what a signal or a closed pipe ended has 128 + the signal's number, as in a shell."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2  # argparse's
    INPUT = 3  # a file, a record, an argument or a setting can't be taken
    STORE = 4  # there is none, or it is locked, damaged, full, of another version or another model
    WORKER = 5  # a child process can't do its work: the model is missing
    DEADLINE = 6
    LEFT_OUT = 7  # all else is done; records that can't be taken were left out, as was asked for
    HANGUP = 129
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141
    TERMINATED = 143


_CODES: tuple[tuple[type[MosError], ExitCode], ...] = (
    (InputError, ExitCode.INPUT),
    (ConfigError, ExitCode.INPUT),
    (StoreError, ExitCode.STORE),
    (WorkerError, ExitCode.WORKER),
    (DeadlineError, ExitCode.DEADLINE),
    (BackpressureError, ExitCode.DEADLINE),
)


def exit_code(error: MosError) -> ExitCode:
    """Return the exit code that stands for ``error``."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.UNEXPECTED)
