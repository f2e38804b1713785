"""Models of any kind behind the backend: other dimensions, prompts, lengths; each compared with its own library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mos_pipeline import config
from mos_pipeline.config import load_config
from mos_pipeline.errors import ConfigError, WorkerError
from mos_pipeline.stages.sentence_transformer import SentenceTransformerBackend
from tests.support import page_text
from tests.tiny_models import make_bert, make_static

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("kept_environment")]

TEXTS = [*(" ".join(page_text(number)) for number in range(8)), "", "beagle " * 500]
PROMPTS = {"query": "query: ", "passage": "passage: "}


def loaded(**settings: Any) -> tuple[SentenceTransformerBackend, dict[str, Any]]:
    backend = SentenceTransformerBackend(load_config({"embedding": settings}, environ={}).embedding)
    return backend, backend.load()


def vectors(backend: SentenceTransformerBackend, *, query: bool = False) -> npt.NDArray[np.float32]:
    return backend.encode(backend.prepare(TEXTS, query=query)).astype(np.float32)


def by_the_library(folder: Path, prompt: str = "", *, query: bool = False, **kwargs: Any) -> npt.NDArray[np.float32]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", **kwargs)
    encode = model.encode_query if query else model.encode_document
    found: npt.NDArray[np.float32] = encode(TEXTS, prompt=prompt, show_progress_bar=False, normalize_embeddings=True)
    return found


def assert_alike(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 2e-3


@pytest.mark.parametrize(
    ("shape", "dimension"),
    [({"hidden": 32}, 32), ({"hidden": 24, "longest": 16}, 24), ({"hidden": 32, "dense": 100, "longest": 512}, 100)],
    ids=["32", "24, short", "100 by a dense layer, long"],
)
def test_a_model_of_another_dimension(tmp_path: Path, shape: dict[str, Any], dimension: int) -> None:
    folder = make_bert(tmp_path / "tiny", **shape)
    backend, info = loaded(model=str(folder))
    assert (info["model"], info["dimension"]) == ("tiny", dimension)
    assert backend._split, "its texts are split once"
    assert {"document_prompt", "options"}.isdisjoint(info)
    assert backend.prepare(TEXTS)[-1].length == min(shape.get("longest", 64), 502)
    found = vectors(backend)
    assert_alike(found, by_the_library(folder))
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=2e-3)


def test_a_model_without_a_network(tmp_path: Path) -> None:
    folder = make_static(tmp_path / "static")
    backend, info = loaded(model=str(folder))
    assert info["dimension"] == 24
    texts = TEXTS[:8]
    found = backend.encode(backend.prepare(texts)).astype(np.float32)
    assert_alike(found, by_the_library(folder)[:8])
    assert all(item.length >= 1 for item in backend.prepare(texts))


@pytest.mark.parametrize("include_prompt", [True, False])
def test_the_prompts_that_a_model_brings(tmp_path: Path, *, include_prompt: bool) -> None:
    folder = make_bert(tmp_path / "asymmetric", prompts=PROMPTS, include_prompt=include_prompt)
    backend, info = loaded(model=str(folder))
    assert backend._split is include_prompt, "one that leaves its prompt out of the mean goes its own way"
    assert info["document_prompt"] == "passage: "
    documents, queries = vectors(backend), vectors(backend, query=True)
    assert_alike(documents, by_the_library(folder, "passage: "))
    assert_alike(queries, by_the_library(folder, "query: ", query=True))
    assert np.abs(documents - queries).max() > 0.01
    mixed = [*backend.prepare(TEXTS[:2]), *backend.prepare(TEXTS[2:4], query=True)]
    found = backend.encode([mixed[2], mixed[0], mixed[3], mixed[1]]).astype(np.float32)
    assert_alike(found, np.array([queries[2], documents[0], queries[3], documents[1]]))


@pytest.mark.parametrize(
    ("settings", "query", "document"),
    [
        ({"document_prompt": "query"}, "query: ", "query: "),
        ({"query_prompt": "passage", "document_prompt": "page. "}, "passage: ", "page. "),
        ({"model_kwargs": {"prompts": {"query": "ask ", "document": "tell "}}}, "ask ", "tell "),
    ],
    ids=["by name", "as text", "as an argument"],
)
def test_prompts_that_are_chosen(tmp_path: Path, settings: dict[str, Any], query: str, document: str) -> None:
    folder = make_bert(tmp_path / "asymmetric", prompts=PROMPTS)
    backend, info = loaded(model=str(folder), **settings)
    assert info["document_prompt"] == document
    assert_alike(vectors(backend), by_the_library(folder, document))
    assert_alike(vectors(backend, query=True), by_the_library(folder, query, query=True))


def test_arguments_of_the_constructor_reach_it(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "tiny")
    backend, info = loaded(model=str(folder), model_kwargs={"truncate_dim": 20, "device": "cpu"})
    assert (info["dimension"], info["options"]) == (20, {"truncate_dim": 20})
    assert backend._split
    assert_alike(vectors(backend), by_the_library(folder, truncate_dim=20))


def test_arguments_that_the_model_refuses_are_told(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "tiny")
    with pytest.raises(WorkerError, match=rf"{folder}: the model can't be loaded .*embedding.model_kwargs"):
        loaded(model=str(folder), model_kwargs={"model_kwargs": {"no_such_argument": 1}})


def test_a_model_that_is_broken_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(WorkerError, match=rf"{tmp_path}: the model can't be loaded"):
        loaded(model=str(tmp_path))


def test_a_model_that_computes_no_numbers_is_not_believed(tmp_path: Path) -> None:
    backend, _ = loaded(model=str(make_bert(tmp_path / "tiny")))
    items = backend.prepare(["beagle"])
    with backend._torch.inference_mode():
        for weights in backend._model.parameters():
            weights.fill_(float("nan"))
    with pytest.raises(ValueError, match="not of numbers"):
        backend.encode(items)


@pytest.mark.parametrize(
    ("kwargs", "told"),
    [
        ({"trust_remote_code": True}, "setting of its own, embedding.trust_remote_code"),
        ({"token": "secret"}, "can't have 'token'; it may have revision, device"),
        ({"device": 1}, "device must be of type str, found 1"),
        ({"model_kwargs": {"dtype": object()}}, "plain values alone"),
        ({"config_kwargs": {"x": float("nan")}}, "plain values alone"),
        ("device", "must be of type dict"),
    ],
)
def test_arguments_that_may_not_be_named(kwargs: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config({"embedding.model_kwargs": kwargs}, environ={})


def test_arguments_come_from_the_environment_too() -> None:
    name = "MOS_PIPELINE_EMBEDDING__MODEL_KWARGS"
    found = load_config(environ={name: '{"device": "cpu"}'})
    assert found.embedding == config.Embedding(model_kwargs={"device": "cpu"})
    with pytest.raises(ConfigError, match=r"must be of type dict, found '\{'"):
        load_config(environ={name: "{"})
