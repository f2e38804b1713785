"""Long-term memory for AI agents: fast, without loss, without a server.

     caller's process                                embedder (1)
     add() ─ journal ─ ring ── full batch ────────▶  model loaded and warm; queries overtake pages
       ▲        │              mp queue                    │
       │        │                                          │
       │        │            shared memory ◀── float16 rows, then a message: they are there
       │        │            vector pool   ◀── searched in place
       │        ├─ embedded batch ─────────────▶  LLM pool (n): continuity and overview ∥ topics; profile ∥ knowledge
       │        ├─ summaries, facts ───────────▶  embedder
     supervisor thread: results, deaths, restarts ◀──────────────────────
     coordinator thread: users → short-term, sessions, heat, chains, words, profile, knowledge
                └─ pages, then derived data ───▶  writer (1): msgpack + zstd segments, fsync, acknowledged

What is where:

    pipeline.py, reading.py   MemoryPipeline, its face     memory/    pure: ring, words, ranking, sessions, heat, facts
    responding.py, answering/ from memory to an answer     memoryos/  Memoryos, the class of the original
    engine/       accepting, giving out, applying          store/     journal, segments, compaction, MANIFEST, verify
    stages/       what the child processes do              runtime/   processes, channels, shared memory
    ingest/       reading files                            cli/       the command line
    service/      the owner's socket, both ends            doctor/    what is wrong, and the mend
    legacy/       the original MemoryOS's data folders     migration.py, exporting.py   from there, and back there
    config.py     every setting                            errors.py  every error
    metrics.py    one snapshot, also for Prometheus        logs.py    what every log record tells
    testing/      a fake endpoint, for tests
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mos_pipeline.logs import install

if TYPE_CHECKING:
    from mos_pipeline.config import Config
    from mos_pipeline.errors import (
        BackpressureError,
        ClosedError,
        ConfigError,
        DeadlineError,
        InputError,
        ModelMismatchError,
        ModelNotFoundError,
        MosError,
        RecordError,
        StoreDamagedError,
        StoreError,
        StoreFullError,
        StoreLockedError,
        StoreVersionError,
        WorkerError,
    )
    from mos_pipeline.memoryos.facade import Memoryos
    from mos_pipeline.messages import (
        Added,
        Compacted,
        Hit,
        Knowledge,
        KnowledgeHit,
        Page,
        Parts,
        Profile,
        Repaid,
        Response,
        Retrieved,
        Session,
    )
    from mos_pipeline.metrics import Stats
    from mos_pipeline.pipeline import MemoryPipeline
    from mos_pipeline.responding import ResponseStream

__all__ = [
    "Added",
    "BackpressureError",
    "ClosedError",
    "Compacted",
    "Config",
    "ConfigError",
    "DeadlineError",
    "Hit",
    "InputError",
    "Knowledge",
    "KnowledgeHit",
    "MemoryPipeline",
    "Memoryos",
    "ModelMismatchError",
    "ModelNotFoundError",
    "MosError",
    "Page",
    "Parts",
    "Profile",
    "RecordError",
    "Repaid",
    "Response",
    "ResponseStream",
    "Retrieved",
    "Session",
    "Stats",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreVersionError",
    "WorkerError",
]

__version__ = "0.1.0"

install()

# Loaded when they are first asked for: every child process passes through this module on its way to its stage, and
# most need neither numpy nor the engine.
_HOMES = {
    "Config": "config",
    "BackpressureError": "errors",
    "ClosedError": "errors",
    "ConfigError": "errors",
    "DeadlineError": "errors",
    "InputError": "errors",
    "ModelMismatchError": "errors",
    "ModelNotFoundError": "errors",
    "MosError": "errors",
    "RecordError": "errors",
    "StoreDamagedError": "errors",
    "StoreError": "errors",
    "StoreFullError": "errors",
    "StoreLockedError": "errors",
    "StoreVersionError": "errors",
    "WorkerError": "errors",
    "Added": "messages",
    "Compacted": "messages",
    "Hit": "messages",
    "Knowledge": "messages",
    "KnowledgeHit": "messages",
    "Page": "messages",
    "Parts": "messages",
    "Profile": "messages",
    "Repaid": "messages",
    "Response": "messages",
    "Retrieved": "messages",
    "Session": "messages",
    "Stats": "metrics",
    "MemoryPipeline": "pipeline",
    "Memoryos": "memoryos.facade",
    "ResponseStream": "responding",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
