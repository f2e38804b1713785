"""What a run is asked for, and the folders it may use."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline
from mos_pipeline.config import Embedding, load_config
from mos_pipeline.errors import ConfigError
from perf.texts import Page, dataset_pages, synthetic_pages

__all__ = ["LATENCY_MS", "Options", "backends", "milliseconds", "nested", "read_settings", "settings_of"]

LATENCY_MS = 350.0  # of the fake endpoint, as a quick model of a provider takes


@dataclass(frozen=True, slots=True)
class Options:
    """One run.

    Attributes:
        quick: small sizes, for a look; the figures are rougher.
        pages: pages to add, store or ingest, in place of each bench's own number.
        backend: the embedding backend where a bench leaves the choice.
        dataset: a LoCoMo file to take pages from; synthetic ones where None.
        folder: where stores are made; the system's temporary folder where None.
        latency_ms: what the fake endpoint takes for an answer.
        settings: of every pipeline that is measured, over the bench's own: ``{"embedding__precision": "int8"}``.
    """

    quick: bool = False
    pages: int | None = None
    backend: str = load_config(environ={}).embedding.backend
    dataset: Path | None = None
    folder: Path | None = None
    latency_ms: float = LATENCY_MS
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def latency_s(self) -> float:
        """What the fake endpoint takes for an answer, in seconds."""
        return self.latency_ms / 1000.0

    def size(self, full: int, quick: int) -> int:
        """Return how many pages a bench takes: ``full`` or ``quick``, unless told otherwise."""
        return self.pages or (quick if self.quick else full)

    def times(self, full: int, quick: int) -> int:
        """Return how often a bench repeats something."""
        return quick if self.quick else full

    def source(self) -> list[Page] | None:
        """Return all pages of the data set, or None where there is none."""
        return None if self.dataset is None else dataset_pages(self.dataset)

    def page_stream(self) -> Iterator[Page]:
        """Yield pages without end: synthetic ones, or the data set's again and again.

        From the second round on the round's number ends what the user says: an equal text would not be embedded again.
        """
        source = self.source()
        return synthetic_pages() if source is None else _rounds(source)

    @contextmanager
    def store(self) -> Iterator[Path]:
        """Provide a path for a store, removed with all that is in it at the end."""
        with tempfile.TemporaryDirectory(prefix="mos-perf-", dir=self.folder) as folder:
            yield Path(folder) / "store"

    def with_own(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return a bench's own settings with those of the command line over them."""
        return {**own, **self.settings}

    def checked(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return all settings that a pipeline has with a bench's own, those of the command line over them."""
        return load_config(overrides=self.with_own(own)).as_dict()

    def open(self, store: Path, **own: Any) -> MemoryPipeline:
        """Open a pipeline with a bench's own settings and those of the command line over them."""
        return MemoryPipeline.open(store, **self.with_own(own))


def _rounds(pages: Sequence[Page]) -> Iterator[Page]:
    yield from pages
    for number in itertools.count(2):
        yield from ({**page, "user_input": f"{page['user_input']} ({number})"} for page in pages)


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Return settings of the command line, each ``section.key=value``, by their keywords (``section__key``).

    Raises:
        ConfigError: there is no such setting, or its value is of the wrong type or out of its range.
    """
    defaults = load_config(environ={}).as_dict()
    found: dict[str, Any] = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        section, _, name = key.strip().replace("__", ".").partition(".")
        found[f"{section}__{name}" if name else section] = _read(text, defaults.get(section, {}).get(name))
    load_config(overrides=found)  # checks them
    return found


def _read(text: str, default: object) -> Any:
    """Return a setting's text as what it means; what can't be read stays text, for the check to refuse."""
    try:
        return text if isinstance(default, str) else json.loads(text)
    except ValueError:
        return text


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Return what ``--set`` says.

    Raises:
        SystemExit: one of ``pairs`` is no setting.
    """
    try:
        return read_settings(pairs)
    except ConfigError as error:
        raise SystemExit(f"--set: {error}") from None


def milliseconds(text: str) -> float:
    """Return what an answer of the fake endpoint takes, as the command line says it: more than nothing."""
    latency = float(text)
    if not 0.0 < latency < math.inf:
        raise ValueError(text)
    return latency


def backends() -> Sequence[str]:
    """Return the embedding backends that there are."""
    (backend,) = (each for each in fields(Embedding) if each.name == "backend")
    choices: Sequence[str] = backend.metadata["choices"]
    return choices


def nested(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return settings as a file has them, section by section."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        section, _, key = name.partition("__")
        found.setdefault(section, {})[key] = value
    return found
