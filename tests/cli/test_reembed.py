"""``mos-pipeline reembed``: another model for a store, told with its progress, refused where it can't be."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from tests.cli.common import SETTINGS, Here, records, result_of, start, write
from tests.cli.test_beside_owner import owner_of
from tests.faults.common import until

NEW = {"MOS_PIPELINE_EMBEDDING__FAKE_DIMENSION": "500"}
SLOW = {**NEW, "MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "50"}
PAGES = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    lines = write(folder / "pages.jsonl", records(PAGES))
    assert result_of("ingest", lines, "--store", folder / "store")["accepted"] == PAGES
    return folder / "store"


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    for name, value in {**SETTINGS, **NEW}.items():
        monkeypatch.setenv(name, value)
    return Here(capsys)


def test_a_store_gets_another_model(store: Path, here: Here) -> None:
    asked = ("query", "--store", store, "--user", "user 0", "--assistant", "helper", "number3")
    assert here(*asked) == ExitCode.STORE
    assert "dimension 384 there, 500 here" in here.err
    assert f"mos-pipeline reembed --store {store}" in here.err
    assert here.json("stats", "--store", store)["model"]["dimension"] == 384, "it needs no model"
    told = here.json("reembed", "--store", store)
    assert (told["model"]["dimension"], told["left"], told["set_aside"], told["compaction"]) == (500, 0, {}, None)
    assert told["made_again"] > PAGES, "pages, and summaries"
    found = here.json(*asked)
    assert found["pages"][0]["page"]["user_input"].endswith("number3")
    assert not found["degraded"]
    assert here("reembed", "--store", store, "--compact") == 0
    assert "nothing: all are this model's" in here.out
    assert "segments" in here.out
    assert here("verify", "--store", store) == 0


def test_it_is_refused_where_it_cant_be(
    store: Path, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here("reembed", "--store", tmp_path / "none") == ExitCode.STORE
    assert not (tmp_path / "none").exists()
    before = StoreFolder(store).manifest.read_bytes()
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__BACKEND", "torch")
    assert here("reembed", "--store", store, "--model", "no/such-model") == ExitCode.WORKER
    assert "the model 'no/such-model' was not found" in here.err
    assert StoreFolder(store).manifest.read_bytes() == before


@pytest.mark.slow
def test_beside_an_owner_it_is_refused_and_says_what_to_do(store: Path, here: Here) -> None:
    with owner_of(store) as owner:
        assert here("reembed", "--store", store) == ExitCode.STORE
        assert str(owner.pid) in here.err
        assert "end it and run this again, or have it open the store with reembed=True" in here.err
        assert here.json("stats", "--store", store)["model"]["dimension"] == 384


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_it_goes_on(store: Path, here: Here, how: signal.Signals) -> None:
    process = start("reembed", "--store", store, settings=SLOW)
    try:
        until(lambda: Manifest.load(StoreFolder(store)).vector_generation, "it has begun")
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    if how == signal.SIGINT:
        assert process.returncode == 128 + how
        assert "the same command goes on from there" in err
    assert here.json("stats", "--store", store)["unlifted"] > 0
    assert here("stats", "--store", store) == 0
    assert "to make again" in here.out
    assert here("stats", "--store", store, "--prometheus") == 0
    assert "mos_pipeline_unlifted_vectors" in here.out
    told = here.json("reembed", "--store", store)
    assert told["made_again"] > 0
    assert here.json("stats", "--store", store)["unlifted"] == 0
