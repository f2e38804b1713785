"""Every setting with its default, unit and meaning, and the checks on them.

The dataclasses below are the one source: ``config.yaml`` is their rendering
(``python -m mos_pipeline.config``), and a test keeps the two equal. Values come, the later over the earlier,
from the defaults, a file or mapping, the environment (``MOS_PIPELINE_SECTION__KEY``) and keyword arguments
(``section__key=…``).
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mos_pipeline.errors import ConfigError

__all__ = ["Config", "load_config", "render_yaml"]

ENV_PREFIX = "MOS_PIPELINE_"
MIB = 1 << 20
MASK = "***"

Source = str | os.PathLike[str] | Mapping[str, Any] | None


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    keys: Mapping[str, type] | None = None,
) -> Any:
    """Declare a setting: a dataclass field that carries its unit, meaning and range; a secret one is never shown.

    A setting whose default is a dict is a mapping: ``keys`` are those that it may have, with the types of their values.
    """
    metadata = {"meaning": meaning, "unit": unit, "low": low, "high": high, "choices": choices, "secret": secret}
    metadata |= {"default": default, "keys": keys}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True)
class ShortTerm:
    """The most recent pages of each (user, assistant)."""

    capacity: int = setting(9, "pages in the ring; so many new ones make a batch", unit="pages", low=1)


@dataclass(frozen=True, slots=True)
class MidTerm:
    """Sessions: pages of one topic with a summary, keywords and an embedding."""

    similarity_threshold: float = setting(
        0.6, "a topic joins the best session from this cosine + Jaccard on, else it founds one", low=0.0
    )
    capacity: int = setting(
        2000, "sessions kept per user; beyond, the least retrieved goes, and its pages stay", unit="sessions", low=1
    )
    heat_threshold: float = setting(
        7.0, "from this heat on a session's new pages are read for profile and knowledge", low=0.0
    )
    heat_alpha: float = setting(
        1.0, "heat: weight of a retrieval that matched the session (1 for all three, as in MemoryOS)", low=0.0
    )
    heat_beta: float = setting(1.0, "heat: weight of a page that came since the session was last read", low=0.0)
    heat_gamma: float = setting(1.0, "heat: weight of recency, which falls from 1 to 0", low=0.0)
    recency_hours: float = setting(24.0, "heat: so long after a visit recency is 1/e", unit="hours", low=0.001)


@dataclass(frozen=True, slots=True)
class LongTerm:
    """Profile and knowledge."""

    knowledge_capacity: int = setting(
        100, "facts kept of each user, and of each user's assistant; beyond, the oldest goes", unit="facts", low=1
    )
    promotion_pages: int = setting(
        36,
        "a user's profile and knowledge are made at most once in so many pages, of so many at most",
        unit="pages",
        low=1,
    )
    facts_per_promotion: int = setting(
        3, "facts taken each time (extractive); each is embedded, which costs a text", unit="facts", low=0
    )
    profile_lines: int = setting(24, "lines of a profile, headings left out (extractive)", unit="lines", low=1)
    merge_cosine: float = setting(0.95, "two facts from this cosine on are one", low=0.0, high=1.0)
    share_assistant_knowledge: bool = setting(
        False, "may what an assistant said of itself to one user be found by its other users"
    )


PRECISIONS = ("fp32", "int8")
QUANTISED = ("openvino", "onnx")  # backends that compute int8

# What may be handed to the model's constructor. Neither keys of the hub, which would be shown with the settings, nor
# what the library decides itself.
MODEL_KWARGS: Mapping[str, type] = {
    "revision": str,
    "device": str,
    "prompts": dict,
    "truncate_dim": int,
    "model_kwargs": dict,
    "processor_kwargs": dict,
    "tokenizer_kwargs": dict,
    "config_kwargs": dict,
}


@dataclass(frozen=True, slots=True)
class Embedding:
    """The model, its process and its vectors."""

    backend: str = setting(
        "torch",
        "what computes the model's layers, as sentence-transformers' own backends do; fake makes vectors from words, "
        "for tests and for measuring the engine alone",
        choices=("torch", "openvino", "onnx", "fake"),
    )
    precision: str = setting(
        "fp32",
        "of the model's weights; int8 is quicker, for openvino and onnx, from what `mos-pipeline optimize-model` made; "
        "its vectors count as another model's",
        choices=PRECISIONS,
    )
    tier: str = setting(
        "full",
        "static: not the model, but a table of word pieces distilled from it once, for bulk loads; many times quicker, "
        "less exact, whatever backend, precision, prompts and model_kwargs say; `reembed` lifts such a store to the "
        "full model later",
        choices=("full", "static"),
    )
    model: str = setting("all-MiniLM-L6-v2", "a folder, or the name of a sentence-transformers model")
    query_prompt: str = setting(
        "",
        "what is put before a question: a text, or the name of a prompt that the model brings; empty is the model's "
        "own for queries, if it has one",
    )
    document_prompt: str = setting(
        "",
        "likewise before what is remembered: pages, summaries, facts; vectors made with another one count as another "
        "model's",
    )
    model_kwargs: Mapping[str, Any] = setting(
        {}, f"arguments for the model's constructor: any of {', '.join(MODEL_KWARGS)}", keys=MODEL_KWARGS
    )
    trust_remote_code: bool = setting(False, "may code that comes with the model's files be run; read it before")
    cache_dir: str = setting(
        "",
        "where optimised and static models are kept; empty is mos_pipeline in XDG_CACHE_HOME, or in ~/.cache",
    )
    download: bool = setting(False, "may the model be fetched from the hub where it is not installed")
    threads: int = setting(
        0,
        "threads of the model; 0 is one for each core, or half as many where a measurement at the start finds that as "
        "quick",
        unit="threads",
        low=0,
    )
    batch_word_pieces: int = setting(
        0,
        "word pieces, padding included, in one batch; 0 is as many as a measurement at the start finds quickest, of "
        "those that take at most a quarter of a second, 1024 at least",
        unit="word pieces",
        low=0,
    )
    query_window_s: float = setting(1.0, "for so long after a query batches stay short", unit="seconds", low=0.0)
    query_batch_ms: float = setting(35.0, "how long a batch may take within that window", unit="milliseconds", low=1.0)
    max_chars: int = setting(8192, "a text is cut to so many characters before it is split", unit="characters", low=64)
    in_flight_texts: int = setting(
        128, "texts handed to the embedder ahead of its work; more sorts better, fewer is fairer", unit="texts", low=1
    )
    known_texts: int = setting(
        20_000,
        "texts known by a digest, so that an equal one gets a copy of their vector and is not embedded; some 260 bytes "
        "of memory each; 0 embeds every text",
        unit="texts",
        low=0,
    )
    slab_bytes: int = setting(4 * MIB, "size of one block of shared memory", unit="bytes", low=65536)
    fake_ms_per_text: float = setting(0.0, "time the fake backend takes for a text", unit="milliseconds", low=0.0)
    fake_dimension: int = setting(384, "length of the fake backend's vectors", unit="numbers", low=8, high=4096)


@dataclass(frozen=True, slots=True)
class Llm:
    """The pool that tells topics, continuity, profile and knowledge, and writes answers."""

    provider: str = setting(
        "extractive",
        "who does the tasks; extractive needs no network, openai is any OpenAI-compatible endpoint",
        choices=("extractive", "openai"),
    )
    processes: int = setting(2, "worker processes in the pool", unit="processes", low=1)
    continuity_threshold: float = setting(
        0.3, "neighbouring pages from this cosine on belong to one chain (extractive)", low=-1.0
    )
    base_url: str = setting("", "the endpoint's address, /v1 included; empty is OpenAI's own (openai)")
    api_key: str = setting(
        "", "the endpoint's key; empty takes the environment's OPENAI_API_KEY; never shown (openai)", secret=True
    )
    model: str = setting("gpt-4o-mini", "the model that the endpoint is asked for (openai)")
    plan: str = setting(
        "batched",
        "one prompt a task and batch, or (per_page) MemoryOS's own, two a page, for comparison (openai)",
        choices=("batched", "per_page"),
    )
    max_in_flight: int = setting(
        8, "calls that one process may have in flight; fewer for a while after a 429 (openai)", unit="calls", low=1
    )
    timeout_s: float = setting(60.0, "how long one call may take (openai)", unit="seconds", low=0.01)
    deadline_s: float = setting(
        180.0,
        "how long one prompt may take with its retries and pauses, waiting for its turn left out; then the extractive "
        "answer stands in (openai)",
        unit="seconds",
        low=0.01,
    )
    repay_interval_s: float = setting(
        60.0,
        "so often what is owed, since an extractive answer stood in, is asked for again: one probe, and all if it is "
        "answered (openai)",
        unit="seconds",
        low=0.01,
    )
    page_chars: int = setting(
        4000,
        "each side of a page is cut to so many characters, in its middle, before it is shown (openai)",
        unit="characters",
        low=16,
    )
    bulk_tokens: int = setting(
        6000,
        "pages that an input brings wait for one another until so much text of a user is there, four characters for a "
        "token, or nothing more comes, and are told of at once; 0: each batch by itself (openai)",
        unit="tokens",
        low=0,
    )
    bulk_wait_s: float = setting(
        10.0,
        "so long after the last page of a user nothing of that user waits for more (openai)",
        unit="seconds",
        low=0.1,
    )
    max_calls_per_hour: int = setting(
        0, "calls of all processes in an hour; beyond, work waits; 0 is no limit (openai)", unit="calls", low=0
    )
    max_tokens_per_hour: int = setting(0, "likewise, tokens of prompts and answers (openai)", unit="tokens", low=0)


@dataclass(frozen=True, slots=True)
class Store:
    """The folder on disk."""

    durability: str = setting(
        "process",
        "what an accepted page survives: the death of every process, or (power) of the machine too",
        choices=("process", "power"),
    )
    journal_bytes: int = setting(4 * MIB, "size of one journal file", unit="bytes", low=65536)
    segment_bytes: int = setting(64 * MIB, "size at which a new segment file is begun", unit="bytes", low=65536)
    frame_pages: int = setting(
        64,
        "pages whose vectors make a frame; their texts make two, their words and events a quarter of one",
        unit="pages",
        low=1,
    )
    flush_interval_s: float = setting(
        1.0, "for so long pages may stay in the journal before they are written to a segment", unit="seconds", low=0.0
    )
    compression_level: int = setting(6, "zstd level", low=1, high=22)
    text_cache_bytes: int = setting(16 * MIB, "decompressed page text kept in memory", unit="bytes", low=0)
    max_page_bytes: int = setting(
        16 * MIB,
        "a page, its metadata included, that takes more is refused; an ingested line may be six times as long",
        unit="bytes",
        low=1024,
        high=1 << 30,
    )
    max_dead_ratio: float = setting(
        0.25,
        "share of the pages on the disk, or of their bytes, that may be forgotten ones before segments are compacted",
        low=0.0,
        high=1.0,
    )
    lock_timeout_s: float = setting(
        10.0, "how long open() waits for the orphaned writer of a dead owner", unit="seconds", low=0.0
    )


@dataclass(frozen=True, slots=True)
class Backlog:
    """Accepted pages that the models have not worked off yet; they wait on disk."""

    max_bytes: int = setting(1024 * MIB, "high-water mark", unit="bytes", low=1)
    policy: str = setting("block", "what add does above the mark", choices=("block", "raise"))
    timeout_s: float = setting(60.0, "how long add waits under policy block", unit="seconds", low=0.0)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Finding pages again."""

    k: int = setting(7, "pages returned", unit="pages", low=1)
    timeout_s: float = setting(
        5.0, "how long retrieve waits for the query's vector before it answers by words alone", unit="seconds", low=0.0
    )
    method: str = setting(
        "joined",
        "how pages are ranked: vectors and words joined, or (two-level) MemoryOS's own search, sessions before pages",
        choices=("joined", "two-level"),
    )
    dense_weight: float = setting(1.0, "weight of the cosine; the other weights are relative to it", low=0.0)
    words_weight: float = setting(
        0.9,
        "weight of the page's BM25, as a share of the most that a page could reach (by python -m perf tune)",
        low=0.0,
    )
    window_weight: float = setting(
        1.1, "weight of the BM25 of the page with its neighbours, as such a share: answers follow questions", low=0.0
    )
    sitting_weight: float = setting(
        0.5, "weight of the BM25 of the page's whole sitting, as such a share: what the talk was about", low=0.0
    )
    window_words: float = setting(
        60.0, "so much a neighbour lends to a page's window: few turns, little of a long page", unit="words", low=0.0
    )
    sitting_key: str = setting("session", "where in a page's metadata its source names the sitting it belongs to")
    sitting_gap_hours: float = setting(
        1.0, "pages without such a name that lie so far apart in time belong to two sittings", unit="hours", low=0.0
    )
    knowledge_k: int = setting(20, "facts returned, of the user and of the assistant each", unit="facts", low=1)
    knowledge_cosine: float = setting(0.01, "facts below this cosine are left out (MemoryOS's own)", low=-1.0, high=1.0)
    bm25_k1: float = setting(
        1.2, "BM25: how fast repeated words saturate (the textbook's; choosing it by data won nothing)", low=0.0
    )
    bm25_b: float = setting(0.75, "BM25: how much long pages are discounted, 0 to 1 (likewise)", low=0.0, high=1.0)


@dataclass(frozen=True, slots=True)
class Response:
    """Answers that a model writes from what memory tells."""

    prompt_tokens: int = setting(
        6000,
        "about how long the whole prompt may be, four characters for a token; beyond, the least important is left out",
        unit="tokens",
        low=1,
    )
    answer_tokens: int = setting(1500, "length of an answer, thoughts included, at most", unit="tokens", low=1)
    temperature: float = setting(0.7, "0 for the likeliest answer (both MemoryOS's own)", low=0.0, high=2.0)
    deadline_s: float = setting(
        120.0,
        "how long an answer of the endpoint may take in all, waiting for its turn and calls made again included; then "
        "respond raises (openai)",
        unit="seconds",
        low=0.01,
    )


@dataclass(frozen=True, slots=True)
class Runtime:
    """Processes and deadlines."""

    start_timeout_s: float = setting(180.0, "how long a worker may take to get ready", unit="seconds", low=0.1)
    close_timeout_s: float = setting(10.0, "deadline of close() for all processes together", unit="seconds", low=0.1)
    work_timeout_s: float = setting(
        120.0, "a worker that is silent for so long over one piece of work is killed", unit="seconds", low=0.1
    )
    max_attempts: int = setting(3, "deaths after which a piece of work is halved, or set aside", low=1)
    restart_backoff_s: float = setting(
        0.1, "pause before a restart, doubled with each death in a row", unit="seconds", low=0.0
    )
    max_restarts: int = setting(30, "deaths in a row, without any work done, after which a worker stays down", low=1)
    socket: bool = setting(
        True, "does the owner answer on a socket in the store's folder, for the command line beside it"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, checked. Immutable; ``load_config`` makes one.

    Raises:
        ConfigError: from ``load_config``, naming the key, its value and what would be right.
    """

    short_term: ShortTerm = field(default_factory=ShortTerm)
    mid_term: MidTerm = field(default_factory=MidTerm)
    long_term: LongTerm = field(default_factory=LongTerm)
    embedding: Embedding = field(default_factory=Embedding)
    llm: Llm = field(default_factory=Llm)
    store: Store = field(default_factory=Store)
    backlog: Backlog = field(default_factory=Backlog)
    retrieval: Retrieval = field(default_factory=Retrieval)
    response: Response = field(default_factory=Response)
    runtime: Runtime = field(default_factory=Runtime)

    def as_dict(self, *, secrets: bool = False) -> dict[str, dict[str, Any]]:
        """Return the settings as plain nested dicts, section by section; secrets masked, unless they are asked for."""
        settings = dataclasses.asdict(self)
        for key, declared in _known().items():
            section, _, name = key.partition(".")
            if declared.metadata["secret"] and settings[section][name] and not secrets:
                settings[section][name] = MASK
        return settings


def load_config(
    source: Source = None, *, environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Merge defaults, ``source`` (a YAML path or a mapping), the environment and ``overrides`` into a Config.

    Keys may be nested (``{"store": {"durability": "power"}}``), dotted (``"store.durability"``) or joined by two
    underscores (``store__durability``).

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), a value has the wrong type or range, or the
            file can't be read.
    """
    values: dict[str, Any] = {}
    origin = "configuration"
    if isinstance(source, str | os.PathLike):
        origin, source = os.fspath(source), _read_yaml(Path(source))
    for where, layer in (
        (origin, _flatten(source or {}, origin)),
        ("environment", _from_environment(os.environ if environ is None else environ)),
        ("keyword argument", _flatten(overrides or {}, "keyword argument")),
    ):
        for key, value in layer:
            values[key] = _checked(key, value, where)
    return _build(values)


def render_yaml() -> str:
    """Return the text of ``config.yaml``: every setting at its default, with unit and meaning."""
    lines = ["# Every setting of mos_pipeline at its default. Written by: python -m mos_pipeline.config"]
    for section in dataclasses.fields(Config):
        kind = _section_type(section)
        lines += ["", f"# {(kind.__doc__ or '').strip()}", f"{section.name}:"]
        for f in dataclasses.fields(kind):
            notes = [f.metadata["meaning"]]
            if f.metadata["choices"]:
                notes.append("one of " + ", ".join(f.metadata["choices"]))
            if f.metadata["unit"]:
                notes.append(f.metadata["unit"])
            lines += [f"  # {'; '.join(notes)}", f"  {f.name}: {json.dumps(f.metadata['default'])}"]
    return "\n".join(lines) + "\n"


def _section_type(section: dataclasses.Field[Any]) -> Any:
    return section.default_factory


def _known() -> dict[str, dataclasses.Field[Any]]:
    return {
        f"{section.name}.{f.name}": f
        for section in dataclasses.fields(Config)
        for f in dataclasses.fields(_section_type(section))
    }


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml  # only here: most callers never read a file, and the import takes 20 ms

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: the configuration can't be read ({error.strerror}); name a readable file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected sections with settings at the top, found {type(data).__name__}")
    return data


def _flatten(source: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    sections = {section.name for section in dataclasses.fields(Config)}
    for name, value in source.items():
        key = str(name).replace("__", ".")
        if key in sections:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {key}: expected a section with settings, found {value!r}")
            yield from ((f"{key}.{inner}", v) for inner, v in value.items())
        else:
            yield key, value


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    known = _known()
    for name, text in environ.items():
        if name.startswith(ENV_PREFIX):
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            yield key, _parsed(text, type(known[key].metadata["default"])) if key in known else text


def _parsed(text: str, kind: type) -> Any:
    """Read an environment variable's text as ``kind``; what can't be read stays text, for the check to refuse."""
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if kind is dict:
            return json.loads(text)
        return kind(text)
    except (ValueError, KeyError, RecursionError):
        return text


def _checked(key: str, value: Any, where: str) -> Any:
    known = _known()
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"{where}: unknown setting {key!r}; the nearest known one is {near!r}")
    meta = known[key].metadata
    kind: type = type(meta["default"])
    if meta["secret"] and type(value) is not kind:
        raise ConfigError(f"{where}: {key} must be of type {kind.__name__}, found {type(value).__name__}")
    if kind is float and type(value) is int and abs(value) < sys.float_info.max:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where}: {key} must be of type {kind.__name__}, found {value!r}")
    if isinstance(value, float) and not math.isfinite(value):  # an infinite time limit overflows in select()
        raise ConfigError(f"{where}: {key} must be a finite number, found {value!r}")
    if isinstance(value, dict):
        _check_keys(key, value, meta["keys"], where)
    if meta["choices"] and value not in meta["choices"]:
        raise ConfigError(f"{where}: {key} must be one of {', '.join(meta['choices'])}, found {value!r}")
    if kind in (int, float) and not meta["low"] <= value <= meta["high"]:
        limit = f"at least {meta['low']}" if value < meta["low"] else f"at most {meta['high']}"
        raise ConfigError(f"{where}: {key} must be {limit} {meta['unit']}".rstrip() + f", found {value!r}")
    return value


def _check_keys(key: str, value: Mapping[str, Any], keys: Mapping[str, type], where: str) -> None:
    """Refuse what a mapping may not hold: other keys, values of other types, and what no file could hold."""
    for name, inner in value.items():
        if name == "trust_remote_code":
            raise ConfigError(f"{where}: {key} can't have {name!r}; that is a setting of its own, embedding.{name}")
        if name not in keys:
            raise ConfigError(f"{where}: {key} can't have {name!r}; it may have {', '.join(keys)}")
        if type(inner) is not keys[name]:
            raise ConfigError(f"{where}: {key}: {name} must be of type {keys[name].__name__}, found {inner!r}")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {key} must hold plain values alone, as JSON does ({error})") from None


def _build(values: Mapping[str, Any]) -> Config:
    sections = {}
    for section in dataclasses.fields(Config):
        prefix = f"{section.name}."
        mine = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
        sections[section.name] = _section_type(section)(**mine)
    config = Config(**sections)
    _check_together(config.embedding)
    return config


def _check_together(embedding: Embedding) -> None:
    quantised = embedding.precision == "int8" and embedding.tier == "full"
    if quantised and embedding.backend not in QUANTISED:
        raise ConfigError(
            f"configuration: embedding.precision int8 is for embedding.backend {' and '.join(QUANTISED)}, found "
            f"{embedding.backend!r}; set one of them, or fp32"
        )


if __name__ == "__main__":
    sys.stdout.write(render_yaml())
