from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mos_pipeline import config
from mos_pipeline.errors import ModelNotFoundError, WorkerError
from mos_pipeline.stages.backend import Backend, Vectors
from mos_pipeline.stages.fake_backend import FakeBackend
from mos_pipeline.stages.models import find_model
from mos_pipeline.stages.sentence_transformer import SentenceTransformerBackend, set_environment
from tests.support import environment_kept

TEXTS = [
    "User: The red bicycle is in the garden. Assistant: I shall fetch the red bicycle from the garden.",
    "User: Where did I leave my red bicycle? Assistant: In the garden, I think.",
    "Quarterly revenue rose by four percent.",
    "short",
    "",
    "Ω ж 漢字 🙂 mixed scripts",
]


def embed(backend: Backend, texts: list[str]) -> Vectors:
    return backend.encode(backend.prepare(texts))


def cosines(vectors: Vectors) -> npt.NDArray[np.float32]:
    wide = vectors.astype(np.float32)
    return np.asarray(wide @ wide.T)


class BackendLaws:
    """What every backend keeps; subclasses give a loaded ``backend`` and its ``info``."""

    def test_identity(self, info: dict[str, Any]) -> None:
        assert set(info) == {"model", "dimension", "digest", "backend", "precision", "threads"}
        assert info["dimension"] == 384
        assert info["precision"] == "fp32"

    def test_vectors_have_length_one(self, backend: Backend) -> None:
        vectors = embed(backend, TEXTS)
        assert (vectors.shape, vectors.dtype.name) == ((len(TEXTS), 384), "float16")
        assert np.diag(cosines(vectors)) == pytest.approx(np.ones(len(TEXTS)), abs=2e-3)

    def test_a_vector_does_not_depend_on_its_company(self, backend: Backend) -> None:
        together = embed(backend, TEXTS)
        alone = np.concatenate([embed(backend, [text]) for text in TEXTS])
        assert np.abs(together.astype(np.float32) - alone).max() < 1e-3
        assert np.abs(embed(backend, TEXTS[::-1])[::-1].astype(np.float32) - together).max() < 1e-3

    def test_texts_about_the_same_are_close(self, backend: Backend) -> None:
        matrix = cosines(embed(backend, TEXTS))
        assert matrix[0, 1] > 0.4
        assert matrix[0, 1] > matrix[0, 2] + 0.2

    def test_a_longer_text_has_more_word_pieces(self, backend: Backend) -> None:
        prepared = [item.length for item in backend.prepare(["one", "one two three", "one " * 40])]
        assert prepared == sorted(set(prepared))
        assert all(length >= 1 for length in prepared)
        assert backend.prepare([]) == []


class TestFake(BackendLaws):
    @pytest.fixture
    def backend(self) -> Backend:
        return FakeBackend(config.Embedding(backend="fake"))

    @pytest.fixture
    def info(self, backend: Backend) -> dict[str, Any]:
        return backend.load()

    def test_vectors_are_the_same_on_every_machine(self, backend: Backend) -> None:
        vector = embed(backend, ["hello"])[0]
        places = np.flatnonzero(vector).tolist()
        assert places == [66, 194, 245, 250, 291, 314, 327, 362]
        assert np.sign(vector[places]).astype(int).tolist() == [1, 1, -1, 1, -1, -1, 1, -1]

    def test_words_count_whatever_their_case_and_order(self, backend: Backend) -> None:
        one, other = embed(backend, ["The red bicycle!", "bicycle, red the"])
        assert np.array_equal(one, other)

    def test_the_table_of_words_stays_bounded(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mos_pipeline.stages.fake_backend.MAX_WORDS", 50)
        before = embed(backend, TEXTS)
        for i in range(40):
            embed(backend, [" ".join(f"word{i}x{j}" for j in range(100))])
        assert np.array_equal(embed(backend, TEXTS), before)

    def test_it_takes_as_long_as_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr("time.sleep", slept.append)
        embed(FakeBackend(config.Embedding(backend="fake", fake_ms_per_text=2.0)), TEXTS)
        assert slept == [pytest.approx(0.012)]


@pytest.fixture(scope="module")
def kept_environment() -> Iterator[None]:
    with environment_kept():
        yield


@pytest.fixture(scope="module")
def loaded(kept_environment: None) -> tuple[Backend, dict[str, Any]]:
    backend = SentenceTransformerBackend(config.Embedding())
    return backend, backend.load()


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the model's libraries warn of their own affairs
@pytest.mark.usefixtures("kept_environment")
class TestSentenceTransformer(BackendLaws):
    @pytest.fixture
    def backend(self, loaded: tuple[Backend, dict[str, Any]]) -> Backend:
        return loaded[0]

    @pytest.fixture
    def info(self, loaded: tuple[Backend, dict[str, Any]]) -> dict[str, Any]:
        return loaded[1]

    def test_vectors_are_the_librarys_own(self, backend: SentenceTransformerBackend) -> None:
        from sentence_transformers import SentenceTransformer

        texts = [*TEXTS, "many words " * 300]
        model = SentenceTransformer(str(find_model("all-MiniLM-L6-v2", download=False).folder), device="cpu")
        expected = model.encode(texts, show_progress_bar=False, normalize_embeddings=True)
        assert (embed(backend, texts) * expected).sum(1) == pytest.approx(np.ones(len(texts)), abs=1e-3)
        assert backend.prepare(texts)[-1].length == 256

    def test_a_prompt_that_a_model_takes_for_everything_is_put_before_everything(self) -> None:
        backend = SentenceTransformerBackend(config.Embedding())
        backend.load()
        model = backend._model
        model.prompts, model.default_prompt_name = {"page": "passage about: "}, "page"
        backend._choose_prompts()
        assert all(backend._splits_alike(query=query) for query in (True, False))
        assert (embed(backend, TEXTS) * model.encode(TEXTS, show_progress_bar=False)).sum(1).min() > 0.999
        assert all(item.length >= 1 for item in backend.prepare(TEXTS))

    def test_a_broken_model_is_told_with_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"x")
        with pytest.raises(WorkerError, match=f"{tmp_path}.*can't be loaded"):
            SentenceTransformerBackend(config.Embedding(model=str(tmp_path))).load()


def test_a_model_that_is_nowhere_is_told_before_torch_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_environment: None
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelNotFoundError, match="no model weights"):
        SentenceTransformerBackend(config.Embedding(model=str(tmp_path))).load()


@pytest.mark.parametrize("download", [False, True])
def test_the_hub_is_closed_unless_downloads_are_allowed(download: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    set_environment(download=download)
    assert os.environ.get("HF_HUB_OFFLINE") == (None if download else "1")
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_no_library_reports_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    set_environment(download=True)
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert sys.modules["openvino_telemetry"] is None, "importing it fails"


def test_importing_the_backend_is_cheap() -> None:
    code = "import mos_pipeline.stages.embed, sys; print({'torch', 'sentence_transformers'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
