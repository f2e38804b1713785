"""The configuration's risky values, and the model that it names."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mos_pipeline.config import Config
from mos_pipeline.doctor.finding import Area, Finding, note, ok, problem
from mos_pipeline.errors import ModelNotFoundError, StoreError, WorkerError
from mos_pipeline.stages.identity import names_it
from mos_pipeline.stages.model_cache import cache_folder
from mos_pipeline.stages.models import MINILM_DIGEST, ModelFiles, find_model
from mos_pipeline.stages.variants import EXPORTED, find_exported, quantised, versions
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.models import model_of, wrong_with_model

__all__ = ["check_endpoint", "check_model", "check_settings"]


def check_settings(config: Config) -> Iterator[Finding]:
    """Tell values that are allowed, and may surprise."""
    cores = len(os.sched_getaffinity(0))
    risky = (
        (
            config.embedding.threads > cores,
            "embedding.threads",
            f"{config.embedding.threads} threads, {cores} cores",
            "0",
        ),
        (
            config.llm.processes > 4 * cores,
            "llm.processes",
            f"{config.llm.processes} processes, {cores} cores",
            "fewer",
        ),
        (not config.runtime.socket, "runtime.socket", "off: no command works beside an owner", "true"),
        (config.store.max_dead_ratio >= 1.0, "store.max_dead_ratio", "1: forgotten bytes stay for ever", "0.25"),
        (config.retrieval.timeout_s == 0.0, "retrieval.timeout_s", "0: no query waits for its vector", "some seconds"),
        (config.runtime.close_timeout_s < 1.0, "runtime.close_timeout_s", "too short to write all", "10"),
        (
            config.backlog.max_bytes < config.store.journal_bytes,
            "backlog.max_bytes",
            "less than a journal holds: add waits for the model",
            f"more than {config.store.journal_bytes}",
        ),
    )
    for applies, key, found, better in risky:
        if applies:
            yield note(Area.CONFIG, key, found, f"set it to {better}, unless it is meant so")


def check_endpoint(config: Config) -> Iterator[Finding]:
    """Tell whether the endpoint could be asked; it is not."""
    llm = config.llm
    if llm.provider != "openai":
        return
    if importlib.util.find_spec("openai") is None:
        yield problem(Area.CONFIG, "llm.provider", "the library openai is not installed", "pip install openai")
    address = urlsplit(llm.base_url)
    if not (llm.base_url or llm.api_key or os.environ.get("OPENAI_API_KEY")):
        mend = "set llm.api_key or the environment's OPENAI_API_KEY, or llm.base_url where the endpoint wants no key"
        yield problem(Area.CONFIG, "llm.provider", "openai, and there is neither a key nor an address", mend)
    elif llm.base_url and not (address.scheme in ("http", "https") and address.hostname):
        mend = "set it to the endpoint's address, such as http://localhost:8080/v1"
        yield problem(Area.CONFIG, "llm.base_url", "no address of the web", mend)
    else:
        where = address.hostname or "OpenAI's own address"
        yield ok(Area.CONFIG, "endpoint", f"the model {llm.model} at {where}; it was not asked")


def check_model(root: Path, config: Config) -> Iterator[Finding]:
    """Look for the model, and whether it is the one that the store's vectors come from."""
    if config.embedding.backend == "fake":
        mend = "it knows words, not meanings, and is for tests: set embedding.backend to torch"
        yield note(Area.MODEL, "model", "fake", mend)
        yield from _against_store(root, config)
        return
    if importlib.util.find_spec("sentence_transformers") is None:
        yield problem(
            Area.MODEL, "library", "sentence-transformers is not installed", "pip install sentence-transformers"
        )
    if config.embedding.tier == "static":
        yield from _check_static(root, config)
    try:
        files = find_model(config.embedding.model, revision=config.embedding.model_kwargs.get("revision"))
    except ModelNotFoundError as error:
        if config.embedding.download:
            mend = "it is fetched from the hub when it is first needed (embedding.download)"
            yield note(Area.MODEL, "model", str(error), mend)
        elif config.embedding.tier == "static" and _kept_model(root) is not None:
            yield note(Area.MODEL, "model", str(error), "it is needed to lift the store to the full tier alone")
        else:
            yield problem(Area.MODEL, "model", str(error), "install it as the message says")
        return
    if config.embedding.backend in EXPORTED and config.embedding.tier == "full":
        yield from _check_variant(config, files, (_stored_model(root) or {}).get("digest", ""))
    genuine = " (the original's)" if files.digest == MINILM_DIGEST else ""
    yield ok(Area.MODEL, "model", f"{files.name} in {files.folder}, SHA-256 {files.digest}{genuine}")
    yield from _against_store(root, config)


def _check_static(root: Path, config: Config) -> Iterator[Finding]:
    """Tell where the static model is, or what is missing to distil it."""
    kept = _kept_model(root)
    if kept is not None:
        yield ok(Area.MODEL, "static model", f"the store's own, in {kept}")
        return
    cache = cache_folder(config.embedding.cache_dir)
    if importlib.util.find_spec("model2vec") is not None:
        yield ok(Area.MODEL, "static model", f"distilled at its first need, by model2vec, and kept in {cache}")
    else:
        mend = "pip install 'mos-pipeline[static]', unless it is in the cache"
        yield note(
            Area.MODEL, "static model", f"model2vec is not installed, which makes it; looked for in {cache}", mend
        )


def _kept_model(root: Path) -> Path | None:
    """Return where the store keeps the static model of its vectors, whole; None where it doesn't."""
    folder, identity = StoreFolder(root), _stored_model(root)
    return None if wrong_with_model(folder, identity) else model_of(folder, identity)


def _check_variant(config: Config, files: ModelFiles, digest: str) -> Iterator[Finding]:
    """Look for the libraries of another runtime than torch, and for the model's form for it: the store's, by digest."""
    embedding = config.embedding
    try:
        made_by = versions(embedding.backend)
    except WorkerError as error:
        mend = f"pip install 'mos-pipeline[{embedding.backend}]'"
        yield problem(Area.MODEL, "backend", str(error), mend)
        return
    told = ", ".join(f"{name} {number}" for name, number in made_by.items())
    yield ok(Area.MODEL, "backend", f"{embedding.backend}: {told}")
    try:
        int8 = embedding.precision == "int8"
        found = quantised(embedding, files, digest) if int8 else find_exported(embedding, files)
    except ModelNotFoundError as error:
        yield problem(Area.MODEL, "model's form", str(error), "make it as the message says")
        return
    if found is None:
        mend = "it is made when the model is first loaded, which takes a while"
        yield note(Area.MODEL, "model's form", f"none yet for {embedding.backend} in these versions", mend)
    else:
        yield ok(Area.MODEL, "model's form", f"{found.folder}, SHA-256 {found.about['digest']}")


def _stored_model(root: Path) -> dict[str, Any] | None:
    try:
        return Manifest.load(StoreFolder(root)).embedding
    except StoreError:
        return None  # there is none; or what is wrong with it is told with the store


def _against_store(root: Path, config: Config) -> Iterator[Finding]:
    stored = _stored_model(root)
    if stored is None:
        return
    try:
        same = names_it(config.embedding, stored)
    except ModelNotFoundError:
        return  # there is no such form of it, as was told
    if same:
        yield ok(Area.MODEL, "store's model", "the configured one")
    else:
        mend = (
            "set embedding.model, and the document's prompt, to the store's; or have its vectors made again by the "
            f"configured one: mos-pipeline reembed --store {root}"
        )
        yield problem(
            Area.MODEL, "store's model", f"{stored['model']} ({stored.get('tier') or stored['backend']})", mend
        )
