from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline import config
from mos_pipeline.config import Config, load_config, render_yaml
from mos_pipeline.errors import ConfigError

ROOT = Path(__file__).parents[1]
FIELDS = [
    (section.name, f)
    for section in dataclasses.fields(Config)
    for f in dataclasses.fields(getattr(Config(), section.name))
]
IDS = [f"{section}.{f.name}" for section, f in FIELDS]
WRONG: dict[type, list[Any]] = {
    int: ["5", 1.5, True, None],
    float: ["x", True, None, [1.0]],
    str: [1, None, ["a"]],
    bool: [0, "yes", None],
    dict: ["x", 1, None, [1]],
}


def load(source: config.Source = None, environ: dict[str, str] | None = None, **overrides: Any) -> Config:
    return load_config(source, environ=environ or {}, overrides=overrides)


def refused(source: config.Source = None, environ: dict[str, str] | None = None, **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(source, environ, **overrides)
    return str(caught.value)


def type_of(f: dataclasses.Field[Any]) -> Any:
    return type(default_of(f))


def default_of(f: dataclasses.Field[Any]) -> Any:
    return f.metadata["default"]


def every_section(value: Config) -> dict[str, dict[str, Any]]:
    return {s.name: dataclasses.asdict(getattr(value, s.name)) for s in dataclasses.fields(Config)}


# config.yaml


@pytest.mark.parametrize("path", [ROOT / "config.yaml", Path(config.__file__).with_name("config.yaml")], ids=str)
def test_the_files_are_the_rendering(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == render_yaml(), "write it with: python -m mos_pipeline.config"


def test_the_rendering_holds_every_setting_at_its_default() -> None:
    assert yaml.safe_load(render_yaml()) == every_section(Config())


def test_the_rendering_tells_meaning_unit_and_choices() -> None:
    lines = render_yaml().splitlines()
    for _, f in FIELDS:
        (place,) = (
            i
            for i, line in enumerate(lines)
            if line.startswith(f"  {f.name}: ") and f.metadata["meaning"] in lines[i - 1]
        )
        assert f.metadata["unit"] in lines[place - 1]
        assert all(choice in lines[place - 1] for choice in f.metadata["choices"])


def test_the_module_prints_the_rendering() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mos_pipeline.config"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.decode() == render_yaml()


def test_loading_the_file_gives_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(render_yaml(), encoding="utf-8")
    assert load(path) == load(str(path)) == load() == Config()


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOS_PIPELINE_RETRIEVAL__K", "3")
    assert load_config().retrieval.k == 3


# the settings themselves


@pytest.mark.parametrize(("section", "f"), FIELDS, ids=IDS)
def test_every_setting_is_described_and_its_default_allowed(section: str, f: dataclasses.Field[Any]) -> None:
    assert f.metadata["meaning"]
    assert type_of(f) in WRONG
    assert type_of(f) not in (int, float) or math.isfinite(f.metadata["low"])
    assert not f.metadata["choices"] or default_of(f) in f.metadata["choices"]
    value = getattr(load({section: {f.name: default_of(f)}}), section)
    assert getattr(value, f.name) == default_of(f) == getattr(getattr(Config(), section), f.name)


@pytest.mark.parametrize(("section", "f"), FIELDS, ids=IDS)
def test_a_wrong_type_is_refused(section: str, f: dataclasses.Field[Any]) -> None:
    for value in WRONG[type_of(f)]:
        message = refused({section: {f.name: value}})
        shown = type(value).__name__ if f.metadata["secret"] else repr(value)
        assert f"{section}.{f.name} must be of type {type_of(f).__name__}, found {shown}" in message


@pytest.mark.parametrize(("section", "f"), FIELDS, ids=IDS)
def test_a_value_out_of_range_is_refused(section: str, f: dataclasses.Field[Any]) -> None:
    choices, kind = f.metadata["choices"], type_of(f)
    for bound, words, beyond in ((f.metadata["low"], "at least", -1), (f.metadata["high"], "at most", 1)):
        if math.isfinite(bound):
            assert load({section: {f.name: kind(bound)}})
            wanted = f"{section}.{f.name} must be {words} {bound} {f.metadata['unit']}".rstrip()
            assert f"{wanted}, found {kind(bound + beyond)}" in refused({section: {f.name: kind(bound + beyond)}})
    if choices:
        alone = {"embedding.precision": {"backend": "openvino"}}.get(f"{section}.{f.name}", {})  # what it needs beside
        assert all(load({section: {f.name: choice, **alone}}) for choice in choices)
        assert f"must be one of {', '.join(choices)}, found 'other'" in refused({section: {f.name: "other"}})


def test_int8_is_for_the_backends_that_compute_it() -> None:
    for backend in ("torch", "fake"):
        message = refused({"embedding": {"backend": backend, "precision": "int8"}})
        assert f"embedding.precision int8 is for embedding.backend openvino and onnx, found '{backend}'" in message
    load({"embedding": {"tier": "static", "precision": "int8"}})  # which is for what reembed lifts it to


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_is_finite(number: float) -> None:
    assert "retrieval.timeout_s must be a finite number" in refused(retrieval__timeout_s=number)
    assert "must be a finite number" in refused(environ={"MOS_PIPELINE_RETRIEVAL__TIMEOUT_S": str(number)})


def test_a_whole_number_will_do_for_a_float() -> None:
    value = load(retrieval__timeout_s=2).retrieval.timeout_s
    assert (value, type(value)) == (2.0, float)
    assert "must be of type float" in refused(retrieval__timeout_s=10**400)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().store.durability = "power"  # type: ignore[misc]


def test_a_secret_is_shown_nowhere_unless_asked_for() -> None:
    value = load(environ={"MOS_PIPELINE_LLM__API_KEY": "sk-secret"})
    assert value.llm.api_key == "sk-secret"
    assert "sk-secret" not in f"{value!r} {value} {value.as_dict()} {value.llm}"
    assert value.as_dict()["llm"]["api_key"] == "***"
    assert load(value.as_dict(secrets=True)) == value
    assert load().as_dict()["llm"]["api_key"] == "", "whether there is one may be seen"
    assert "sk-secret" not in refused(llm__api_key=["sk-secret"])


def test_as_dict_can_be_loaded_again() -> None:
    value = load(store__durability="power", retrieval__k=3)
    assert value.as_dict() == every_section(value)
    assert load(value.as_dict()) == value


# unknown keys


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("store.durabilty", "store.durability"),
        ("stor.durability", "store.durability"),
        ("retrieval__kk", "retrieval.k"),
        ("short_term.capacty", "short_term.capacity"),
        ("", ""),
        ("store", ""),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(key: str, nearest: str) -> None:
    message = refused({key: 1})
    if key != "store":
        assert message.startswith(f"configuration: unknown setting {key.replace('__', '.')!r}")
        assert f"the nearest known one is '{nearest}" in message
    else:
        assert message == "configuration: store: expected a section with settings, found 1"


def test_an_unknown_key_in_a_section_or_the_environment_is_refused_too() -> None:
    assert "'store.durabilty'; the nearest known one is 'store.durability'" in refused(
        {"store": {"durabilty": "power"}}
    )
    message = refused(environ={"MOS_PIPELINE_STORE__DURABILTY": "power"})
    assert message.startswith("environment: unknown setting 'store.durabilty'")
    assert refused(store__durabilty="power").startswith("keyword argument: unknown setting")


def test_other_variables_are_not_ours() -> None:
    assert load(environ={"STORE__DURABILITY": "x", "MOS_PIPELINES": "y", "PATH": "/bin"}) == Config()


# where values come from


def test_the_later_source_wins(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("retrieval:\n  k: 2\n  timeout_s: 2.0\n  bm25_b: 0.2\n")
    environ = {"MOS_PIPELINE_RETRIEVAL__K": "3", "MOS_PIPELINE_RETRIEVAL__TIMEOUT_S": "3"}
    found = load(path, environ, retrieval__k=4).retrieval
    assert (found.k, found.timeout_s, found.bm25_b, found.bm25_k1) == (4, 3.0, 0.2, 1.2)


def test_an_earlier_wrong_value_is_refused_although_a_later_one_is_right() -> None:
    assert "retrieval.k must be at least 1" in refused({"retrieval": {"k": 0}}, retrieval__k=4)


@pytest.mark.parametrize(
    "source",
    [{"store": {"durability": "power"}}, {"store.durability": "power"}, {"store__durability": "power"}],
    ids=["nested", "dotted", "underscores"],
)
def test_keys_can_be_written_in_three_ways(source: dict[str, Any]) -> None:
    assert load(source) == load(store__durability="power") == load(None, None, **source)
    assert load(source).store.durability == "power"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("1", True), ("Yes", True), ("false", False), ("0", False), ("NO", False)],
)
def test_switches_in_the_environment(text: str, expected: bool) -> None:
    assert load(environ={"MOS_PIPELINE_EMBEDDING__DOWNLOAD": text}).embedding.download is expected


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("RETRIEVAL__K", "seven", "retrieval.k must be of type int, found 'seven'"),
        ("RETRIEVAL__K", "1.5", "must be of type int, found '1.5'"),
        ("RETRIEVAL__TIMEOUT_S", "", "must be of type float, found ''"),
        ("EMBEDDING__DOWNLOAD", "maybe", "must be of type bool, found 'maybe'"),
        ("STORE__DURABILITY", "none", "must be one of process, power, found 'none'"),
    ],
)
def test_what_the_environment_gets_wrong_is_named(name: str, text: str, found: str) -> None:
    message = refused(environ={f"MOS_PIPELINE_{name}": text})
    assert message.startswith("environment: ")
    assert found in message


@given(st.sampled_from(FIELDS), st.integers(1, 1000))
def test_a_number_means_the_same_from_everywhere(where: tuple[str, dataclasses.Field[Any]], extra: int) -> None:
    section, f = where
    if type_of(f) in (int, float):
        value = type_of(f)(min(f.metadata["low"] + extra, f.metadata["high"]))
        by_name = load(environ={f"MOS_PIPELINE_{section}__{f.name}".upper(): str(value)})
        assert by_name == load({section: {f.name: value}}) == load(**{f"{section}__{f.name}": value})
        assert getattr(getattr(by_name, section), f.name) == value


# files


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_changes_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text(text)
    assert load(path) == Config()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"- a\n", "expected sections with settings at the top, found list"),
        (b"just words", "found str"),
        (b"store: [", "not valid YAML"),
        (b"\xff\xfe", "not valid YAML"),
        (b"store: power\n", "store: expected a section with settings, found 'power'"),
        (b"store:\n", "store: expected a section with settings, found None"),
        (b"1: 2\n", "unknown setting '1'"),
        (b"store:\n  durability: none\n", "store.durability must be one of"),
    ],
)
def test_a_file_that_cannot_be_taken_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    message = refused(path)
    assert reason in message
    assert message.startswith(f"{path}: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone.yaml").startswith(f"{tmp_path / 'gone.yaml'}: the configuration can't be read (No ")
    assert "can't be read" in refused(tmp_path)
