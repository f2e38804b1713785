"""What the library logs: where it goes, what it tells besides the text, and that it is quiet by itself."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mos_pipeline
from tests.support import open_fake, page_text

PATIENCE_S = 60.0
REPO = Path(mos_pipeline.__file__).parents[1]


class Kept(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def listening(name: str) -> Iterator[Kept]:
    handler, logger = Kept(), logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose last segment ends in the midst of a frame: its writer, a process of its own, warns of that."""
    store = tmp_path_factory.mktemp("made") / "store"
    with open_fake(store, llm__processes=1) as memory:
        memory.add("tom", *page_text(1))
        memory.flush(timeout=PATIENCE_S)
    segment = max((store / "segments").iterdir())
    segment.write_bytes(segment.read_bytes() + b"\0" * 10)
    return store


@pytest.fixture
def torn(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "store")


def test_a_workers_warning_reaches_mains_handlers_with_its_fields(torn: Path) -> None:
    with listening("mos_pipeline") as heard, listening("") as at_root, open_fake(torn, llm__processes=1) as memory:
        memory.add("tom", *page_text(2))
        memory.flush(timeout=PATIENCE_S)
    for records in (heard.records, at_root.records):
        (record,) = [record for record in records if "torn tail of 10 bytes" in record.getMessage()]
        assert (record.name, record.levelno) == ("mos_pipeline.store.segment_writer", logging.WARNING)
        assert record.process == os.getpid()
        fields = vars(record)
        assert (fields["role"], fields["store"], fields["event"]) == ("writer", str(torn), "")


def test_every_record_has_all_fields_and_what_happened_has_a_name(tmp_path: Path) -> None:
    with listening("mos_pipeline") as heard, open_fake(tmp_path / "a") as one, open_fake(tmp_path / "b") as other:
        for memory in (one, other):
            memory.add("tom", *page_text(1))
            memory.wait_idle(PATIENCE_S)
        os.kill(other.stats().workers["embedder"].pids[0], 9)
        other.add("tom", *page_text(2))
        other.wait_idle(PATIENCE_S)
        logging.getLogger("mos_pipeline.anything").warning("by a caller's thread")
    told = [(vars(r)["event"], vars(r)["store"], vars(r)["role"]) for r in heard.records]
    assert ("worker-died", str(tmp_path / "b"), "main") in told
    assert ("", "", "main") in told
    assert not any(event == "worker-died" and store != str(tmp_path / "b") for event, store, _ in told)


PROGRAM = """
import os, sys
from mos_pipeline import MemoryPipeline
with MemoryPipeline.open(sys.argv[1], embedding__backend="fake") as memory:
    memory.add("tom", "a", "b")
    memory.flush()
    os.kill(memory.stats().workers["writer"].pids[0], 9)
    memory.add("tom", "c", "d")
    memory.flush()
"""


def test_without_a_handler_nothing_is_printed(torn: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(torn)],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.slow
def test_the_command_line_shows_warnings_and_more_with_verbose(torn: Path) -> None:
    def errors_of(*options: str) -> str:
        command = [sys.executable, "-m", "mos_pipeline", "compact", "--store", str(torn), *options]
        environment = {**os.environ, "PYTHONPATH": str(REPO)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        return done.stderr

    first = errors_of()
    assert "warning: " in first and "torn tail of 10 bytes is cut off" in first
    assert "compacted: " not in first
    assert "info: compacted: " in errors_of("--verbose")


def test_no_other_logger_is_touched() -> None:
    program = "import logging; import mos_pipeline.pipeline; r = logging.getLogger(); print(r.handlers, r.level)"
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout == f"[] {logging.WARNING}\n"
