"""Log records: quiet unless somebody listens, and with the same fields wherever they come from.

Every record of a logger ``mos_pipeline.*`` has these attributes, for formatters, filters and JSON:

    store   the folder that it is about; empty where that is not known
    role    the process that said it: main, embedder, writer, llm
    event   what happened, for machines: worker-died, page-set-aside, …; empty for most

Child processes hand their records to the main process, which logs them under their names. Nothing is printed where the
application has no handler, and no logger but the library's own is touched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["MAIN", "ROOT", "about", "install"]

ROOT = "mos_pipeline"
MAIN = "main"

_store: ContextVar[str] = ContextVar("mos_pipeline_store", default="")


class _Fields(logging.NullHandler):
    """Prints nothing, and gives a record the fields that it lacks.

    Handlers see one and the same record, those of the application after this one: it is the first on the library's own
    logger, which comes before the root. It runs in the thread that logs, and so knows what that thread is about.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        for name, value in (("store", _store.get()), ("role", MAIN), ("event", "")):
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def install() -> None:
    """Put the fields on the library's records; once."""
    logger = logging.getLogger(ROOT)
    if not any(isinstance(handler, _Fields) for handler in logger.handlers):
        logger.addHandler(_Fields())


@contextmanager
def about(store: object) -> Iterator[None]:
    """Have what this thread logs in the block, and threads that take its context over, tell which store it is about."""
    token = _store.set(str(store))
    try:
        yield
    finally:
        _store.reset(token)
