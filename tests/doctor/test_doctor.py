"""The doctor: each fault is found and has its mend, and looking changes nothing."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.doctor import Finding, Level, examine, machine
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.derived import encode_aside
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import UNFINISHED
from mos_pipeline.store.segment_writer import SegmentWriter
from tests.cli.common import Here
from tests.support import open_fake, page_text


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__BACKEND", "fake")


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(capsys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store; tests look at copies of it."""
    path = tmp_path_factory.mktemp("made") / "store"
    with open_fake(path, llm__processes=1) as memory:
        for number in range(5):
            memory.add("tom", *page_text(number))
        memory.wait_idle(60)
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "store")


def wrong(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings if finding.level != Level.OK}


def state_of(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything of a folder that a look could change."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in (root, *root.rglob("*"))
    }


def test_a_healthy_store_has_no_problem_and_is_not_changed(here: Here, store: Path) -> None:
    before = state_of(store)
    told = here.json("doctor", "--store", store)
    assert told["ok"]
    assert {finding["area"] for finding in told["findings"]} == {"machine", "config", "model", "store"}
    assert all(finding["mend"] for finding in told["findings"] if finding["level"] != "ok")
    assert state_of(store) == before
    assert here("doctor", "--store", store) == ExitCode.OK
    assert here.out.endswith("0 problems\n")


def test_where_there_is_no_store_none_is_made(here: Here, tmp_path: Path) -> None:
    assert "made when it is first opened" in wrong(examine(tmp_path / "new"))["folder"].mend
    assert not list(tmp_path.iterdir())
    assert "there is none" in wrong(examine(tmp_path))["MANIFEST"].found
    assert not list(tmp_path.iterdir())


def damage_frame(store: Path) -> None:
    segment = next((store / "segments").iterdir())
    data = bytearray(segment.read_bytes())
    data[60] ^= 1
    segment.write_bytes(data)


def open_to_all(store: Path) -> None:
    (store / "LOCK").chmod(0o644)


def keep_bytes(store: Path) -> None:
    (store / "aside" / "something").write_bytes(b"x" * 7)


def leave_unfinished(store: Path) -> None:
    (store / "MANIFEST").write_bytes(UNFINISHED)


def lose_segment(store: Path) -> None:
    next((store / "segments").iterdir()).unlink()


def lose_manifest(store: Path) -> None:
    (store / "MANIFEST").unlink()


def lose_folder(store: Path) -> None:
    shutil.rmtree(store / "journal")
    (store / "journal").write_text("x")


def set_page_aside(store: Path) -> None:
    writer = SegmentWriter(StoreFolder(store), 1 << 20, 3)
    for seq, reason in ((1, "signal 9"), (2, "signal 9"), (2, "")):
        writer.append(FrameKind.ASIDE, encode_aside(seq, reason), seq)
    writer.close()


@pytest.mark.parametrize(
    ("harm", "what", "level", "found"),
    [
        (damage_frame, "damage", Level.PROBLEM, "offset 0"),
        (open_to_all, "rights", Level.NOTE, "LOCK is open to other users (-rw-r--r--)"),
        (keep_bytes, "kept bytes", Level.NOTE, "1 files, 7 bytes"),
        (leave_unfinished, "MANIFEST", Level.PROBLEM, "never finished"),
        (lose_segment, "damage", Level.PROBLEM, "No such file"),
        (lose_manifest, "MANIFEST", Level.PROBLEM, "it is missing, though"),
        (lose_folder, "damage", Level.PROBLEM, "it is no folder"),
        (set_page_aside, "page set aside", Level.NOTE, "page number 1: signal 9"),
    ],
)
def test_what_is_wrong_with_a_store_is_told(store: Path, harm: Any, what: str, level: Level, found: str) -> None:
    harm(store)
    before = state_of(store)
    finding = wrong(examine(store))[what]
    assert finding.level == level
    assert found in finding.found
    assert finding.mend
    assert state_of(store) == before


def test_an_owner_is_asked(store: Path) -> None:
    with open_fake(store, llm__processes=1):
        told = {finding.what: finding for finding in examine(store)}
        assert told["owner"].found == f"process {os.getpid()}, which answers"
    with open_fake(store, workers=False, runtime__socket=False):
        assert "can't be asked" in wrong(examine(store))["owner"].found


def test_a_wrong_setting_is_told_and_the_rest_looked_at(here: Here, store: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("store: {durabilty: power}")
    assert here("doctor", "--store", store, "--config", tmp_path / "config.yaml") == ExitCode.INPUT
    assert "the nearest known one is 'store.durability'" in here.out
    assert "PROBLEM" in here.out


def test_risky_settings_are_told(store: Path, tmp_path: Path) -> None:
    risky = "embedding: {backend: fake, threads: 512}\nllm: {processes: 500}\n"
    risky += "runtime: {socket: false, close_timeout_s: 0.2}\n"
    risky += "store: {max_dead_ratio: 1.0}\nretrieval: {timeout_s: 0}\nbacklog: {max_bytes: 1}\n"
    (tmp_path / "config.yaml").write_text(risky)
    found = wrong(examine(store, tmp_path / "config.yaml"))
    keys = {"embedding.threads", "llm.processes", "runtime.socket", "runtime.close_timeout_s", "store.max_dead_ratio"}
    assert keys | {"retrieval.timeout_s", "backlog.max_bytes"} <= set(found)


@pytest.mark.parametrize(
    ("settings", "what", "level", "words"),
    [
        ({}, "llm.provider", Level.PROBLEM, "neither a key nor an address"),
        ({"API_KEY": "sk-this-is-a-secret"}, "endpoint", Level.OK, "the model gpt-4o-mini at OpenAI's own address"),
        ({"BASE_URL": "http://localhost:8080/v1", "MODEL": "any"}, "endpoint", Level.OK, "the model any at localhost"),
        ({"BASE_URL": "localhost:8080"}, "llm.base_url", Level.PROBLEM, "no address of the web"),
    ],
    ids=str,
)
def test_an_endpoint_without_key_or_address_is_told(
    store: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], what: str, level: Level, words: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, value in {"PROVIDER": "openai", **settings}.items():
        monkeypatch.setenv(f"MOS_PIPELINE_LLM__{name}", value)
    told = {finding.what: finding for finding in examine(store)}
    assert (told[what].level, words in told[what].found) == (level, True)
    assert "sk-this-is-a-secret" not in str(told)


def test_the_model_is_looked_for_and_compared(
    here: Here, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__BACKEND", "torch")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__MODEL", str(tmp_path / "model"))
    told = {finding.what: finding for finding in examine(store)}
    digest = hashlib.sha256(b"weights").hexdigest()
    assert told["model"].found == f"model in {tmp_path / 'model'}, SHA-256 {digest}"
    assert told["store's model"].level == Level.PROBLEM
    assert here("doctor", "--store", store) == ExitCode.WORKER
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__MODEL", "no-such-model")
    assert "was not found" in wrong(examine(store))["model"].found


def test_a_small_machine_is_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda _: 1 << 20)
    monkeypatch.setattr(machine, "_available", lambda: 100 << 20)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setattr(machine, "_kind", lambda _: "nfs4")
    found = wrong(examine(store))
    assert {"cores", "memory", "/dev/shm", "open files", "disk", "file system"} <= set(found)
    assert found["disk"].level == found["open files"].level == found["file system"].level == Level.PROBLEM


def test_a_file_system_that_can_not_hold_a_journal_is_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert "allocated, mapped and flushed" in wrong(examine(store))["file system"].mend
