"""What kind of work a stack is at, told by its innermost frame that names one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from perf.sampling import Frame, Stacks

__all__ = ["OTHER", "busiest", "by_kind", "kind_of"]

OTHER = "other"
PACKAGE = "mos_pipeline/"

# By the end of the file's path, the first that fits. Frames outside the package count where it calls them.
_KINDS = (
    ("serialisation", ("msgpack/__init__.py", "mos_pipeline/messages.py")),
    ("queues, pipes, wake-ups", ("runtime/channel.py", "runtime/worker.py", "multiprocessing/queues.py")),
    ("queues, pipes, wake-ups", ("multiprocessing/connection.py", "multiprocessing/synchronize.py")),
    ("queues, pipes, wake-ups", ("threading.py", "selectors.py")),
    ("ledger of work in flight", ("runtime/ledger.py", "runtime/pool.py", "runtime/supervisor.py", "engine/desk.py")),
    ("compression", ("store/codec.py",)),
    ("journal", ("store/journal.py", "engine/intake.py", "memory/ring.py", "memory/page_ids.py", "engine/register.py")),
    ("files, flushes", ("store/segment_writer.py", "store/folder.py", "store/segments.py", "store/manifest.py")),
    ("frames", ("stages/write.py", "store/heads.py", "store/derived.py", "engine/derived.py", "engine/events.py")),
    ("frames", ("engine/persistence.py",)),
    ("reading pages", ("store/reading.py", "store/seqs.py")),
    ("words", ("memory/words.py", "memory/word_index.py", "memory/postings.py", "engine/indexing.py")),
    ("words", ("memory/moments.py", "memory/sittings.py", "memory/columns.py")),
    ("vectors", ("runtime/vector_pool.py", "runtime/extents.py", "runtime/slabs.py", "runtime/shared_memory.py")),
    ("sessions, chains, facts", ("engine/placing.py", "memory/sessions.py", "memory/keywords.py", "memory/heat.py")),
    ("sessions, chains, facts", ("memory/chains.py", "memory/facts.py", "memory/state.py", "engine/likeness.py")),
    ("giving out, taking in", ("engine/processing.py", "engine/batches.py", "engine/flow.py", "engine/embedding.py")),
    ("giving out, taking in", ("engine/promotion.py", "memory/scheduling.py", "engine/coordinator.py")),
    ("choosing batches", ("stages/batching.py",)),
    ("model", ("_backend.py", "stages/sentence_transformer.py", "stages/packed_linear.py")),
    ("units of texts", ("stages/embed.py",)),
    ("sentences", ("stages/sentences.py",)),
    ("statements, facts", ("stages/statements.py", "stages/facts.py")),
    ("topics, continuity", ("stages/extractive.py",)),
    ("units of tasks", ("stages/tasks.py",)),
    ("arguments", ("mos_pipeline/arguments.py", "mos_pipeline/pipeline.py")),
)


def kind_of(stack: tuple[Frame, ...]) -> str:
    """Return the kind of a stack's innermost frame that has one; what lies around the package's frames has none."""
    ours = [place for place, (file, _) in enumerate(stack) if PACKAGE in file]
    for file, _ in stack[: ours[-1] + 1] if ours else ():
        for kind, ends in _KINDS:
            if file.endswith(ends):
                return kind
    return OTHER


def by_kind(stacks: Stacks) -> Mapping[str, float]:
    """Return the share of each kind, the largest first; they add up to 1 where there is any stack."""
    counts: Counter[str] = Counter()
    for stack, count in stacks.items():
        counts[kind_of(stack)] += count
    return {kind: count / counts.total() for kind, count in counts.most_common()}


def busiest(stacks: Stacks, most: int) -> list[str]:
    """Return the package's innermost functions that were met most often, with their share of all stacks."""
    counts: Counter[str] = Counter()
    for stack, count in stacks.items():
        file, function = next(((file, function) for file, function in stack if PACKAGE in file), stack[0])
        counts[f"{file.rpartition(PACKAGE)[2]}:{function}"] += count
    return [f"{name} {count / stacks.total():.0%}" for name, count in counts.most_common(most)]
