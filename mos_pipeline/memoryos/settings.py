"""The original's settings as ours, and its ``config.json``. Pure but for reading that file."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mos_pipeline.config import MODEL_KWARGS
from mos_pipeline.errors import ConfigError

__all__ = ["DEFAULTS", "OPENAI", "of_no_use", "pipeline_settings", "read_config"]

OPENAI = "openai"
DEFAULTS: dict[str, Any] = {
    "short_term_capacity": 10,
    "mid_term_capacity": 2000,
    "long_term_knowledge_capacity": 100,
    "retrieval_queue_capacity": 7,
    "mid_term_heat_threshold": 5.0,
    "mid_term_similarity_threshold": 0.6,
    "llm_model": "gpt-4o-mini",
    "embedding_model_name": "all-MiniLM-L6-v2",
}
OURS = {
    "short_term_capacity": "short_term.capacity",
    "mid_term_capacity": "mid_term.capacity",
    "long_term_knowledge_capacity": "long_term.knowledge_capacity",
    "mid_term_heat_threshold": "mid_term.heat_threshold",
    "mid_term_similarity_threshold": "mid_term.similarity_threshold",
    "embedding_model_name": "embedding.model",
    "llm_model": "llm.model",
    "openai_api_key": "llm.api_key",
    "openai_base_url": "llm.base_url",
}
ENDPOINT = ("llm_model", "openai_api_key", "openai_base_url")  # of no meaning where no endpoint is named
# Of the original's embedding_model_kwargs, which it hands to the model's constructor and to its encode alike.
PROMPTS = ("prompt", "prompt_name")  # it puts the same one before what is remembered and before questions
ALWAYS_SO = frozenset({"normalize_embeddings", "convert_to_numpy"})
REQUIRED = ("user_id", "data_storage_path")
KEYS = (*REQUIRED, "openai_api_key", "openai_base_url", "assistant_id", *DEFAULTS, "embedding_model_kwargs")


def pipeline_settings(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a pipeline's settings for the original's arguments, by dotted keys: what is default, and what was chosen.

    An argument that equals the original's default is no choice, so that the environment may set what it stands for.
    ``retrieval_queue_capacity`` is none of them: every object asks for as many pages as it wants.
    """
    defaults: dict[str, Any] = {"long_term.share_assistant_knowledge": True}
    chosen: dict[str, Any] = {}
    has_endpoint = bool(arguments.get("openai_api_key") or arguments.get("openai_base_url"))
    if has_endpoint:
        chosen["llm.provider"] = OPENAI
    for name, key in OURS.items():
        if name in ENDPOINT and not (has_endpoint and arguments.get(name)):
            continue
        value = arguments.get(name, DEFAULTS.get(name))
        (defaults if name in DEFAULTS and value == DEFAULTS[name] else chosen)[key] = value
    return defaults, chosen | _of_the_model(arguments.get("embedding_model_kwargs") or {})


def _of_the_model(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if own := {name: value for name, value in kwargs.items() if name in MODEL_KWARGS}:
        found["embedding.model_kwargs"] = own
    if "trust_remote_code" in kwargs:
        found["embedding.trust_remote_code"] = kwargs["trust_remote_code"]
    for name in PROMPTS:
        if kwargs.get(name):
            found |= {"embedding.query_prompt": kwargs[name], "embedding.document_prompt": kwargs[name]}
    return found


def of_no_use(kwargs: Mapping[str, Any]) -> list[str]:
    """Return which of the original's ``embedding_model_kwargs`` change nothing here."""
    used = {*MODEL_KWARGS, *PROMPTS, *ALWAYS_SO, "trust_remote_code"}
    return [str(name) for name in kwargs if name not in used]


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the arguments in a ``config.json`` of the original; ``openai_api_key`` is empty where it has none.

    Raises:
        ConfigError: it can't be read, has keys that are unknown, or lacks the user or the folder.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: the configuration can't be read ({error.strerror}); name a readable file") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected one JSON object with settings, found {type(found).__name__}")
    unknown = sorted(found.keys() - set(KEYS))
    if unknown:
        named = ", ".join(f"{key!r} (the nearest known one is {_nearest(key)!r})" for key in unknown)
        raise ConfigError(f"{path}: unknown keys: {named}; remove them, or hand settings of ours to config=")
    missing = [key for key in REQUIRED if not found.get(key)]
    if missing:
        raise ConfigError(f"{path}: missing keys: {', '.join(missing)}; add them")
    return {"openai_api_key": "", **found}


def _nearest(key: str) -> str:
    return difflib.get_close_matches(key, KEYS, n=1, cutoff=0.0)[0]
