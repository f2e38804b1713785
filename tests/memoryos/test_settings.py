"""The original's arguments and its config.json as settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import ConfigError, Memoryos
from mos_pipeline.memoryos.settings import pipeline_settings, read_config
from tests.memoryos.test_facade import FAKE

WHOLE: dict[str, Any] = {
    "user_id": "tom",
    "openai_api_key": "",
    "openai_base_url": "",
    "data_storage_path": "data",
    "assistant_id": "helper",
    "short_term_capacity": 4,
    "mid_term_capacity": 50,
    "long_term_knowledge_capacity": 30,
    "retrieval_queue_capacity": 3,
    "mid_term_heat_threshold": 6.0,
    "mid_term_similarity_threshold": 0.5,
    "llm_model": "some-model",
    "embedding_model_name": "all-MiniLM-L6-v2",
}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_the_defaults_are_the_originals() -> None:
    defaults, chosen = pipeline_settings({})
    assert chosen == {}
    assert defaults == {
        "short_term.capacity": 10,
        "mid_term.capacity": 2000,
        "long_term.knowledge_capacity": 100,
        "long_term.share_assistant_knowledge": True,
        "mid_term.heat_threshold": 5.0,
        "mid_term.similarity_threshold": 0.6,
        "embedding.model": "all-MiniLM-L6-v2",
    }


def test_what_was_chosen_goes_before_the_environment_and_defaults_do_not() -> None:
    defaults, chosen = pipeline_settings({"short_term_capacity": 4, "mid_term_capacity": 2000})
    assert chosen == {"short_term.capacity": 4}
    assert "short_term.capacity" not in defaults
    assert defaults["mid_term.capacity"] == 2000


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"openai_api_key": "key"}, {"llm.api_key": "key"}),
        ({"openai_base_url": "http://here/v1"}, {"llm.base_url": "http://here/v1"}),
        (
            {"openai_api_key": "key", "openai_base_url": "http://here/v1", "llm_model": "m"},
            {"llm.api_key": "key", "llm.base_url": "http://here/v1", "llm.model": "m"},
        ),
    ],
)
def test_an_endpoint_that_is_named_is_asked(named: dict[str, str], expected: dict[str, str]) -> None:
    assert pipeline_settings(named)[1] == {"llm.provider": "openai", **expected}


def test_a_model_without_an_endpoint_changes_nothing() -> None:
    assert pipeline_settings({"llm_model": "m", "openai_api_key": "", "openai_base_url": None}) == pipeline_settings({})


def test_a_config_json_of_the_original_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Memoryos.from_config(written(tmp_path / "config.json", WHOLE), config=FAKE) as memo:
        assert (memo.user_id, memo.assistant_id) == ("tom", "helper")
        assert memo.data_storage_path == str(tmp_path / "data")
        assert memo.retriever.retrieval_queue_capacity == 3
        config = memo.pipeline._engine.config
        assert (config.short_term.capacity, config.mid_term.capacity, config.long_term.knowledge_capacity) == (
            4,
            50,
            30,
        )
        assert (config.mid_term.heat_threshold, config.mid_term.similarity_threshold) == (6.0, 0.5)
        assert config.long_term.share_assistant_knowledge
        assert config.llm.provider == "extractive"


def test_the_key_may_be_left_out(tmp_path: Path) -> None:
    assert read_config(written(tmp_path / "c.json", {"user_id": "tom", "data_storage_path": "d"})) == {
        "user_id": "tom",
        "data_storage_path": "d",
        "openai_api_key": "",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**WHOLE, "short_term_capactiy": 3}, "'short_term_capactiy'.*nearest known one is 'short_term_capacity'"),
        ({**WHOLE, "zeta": 1, "alpha": 2}, "unknown keys: 'alpha'.*'zeta'"),
        ({"user_id": "tom"}, "missing keys: data_storage_path"),
        ([1], "expected one JSON object"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Memoryos.from_config(written(tmp_path / "c.json", content))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        Memoryos.from_config(tmp_path / "none.json")
