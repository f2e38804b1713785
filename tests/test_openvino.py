"""OpenVINO's form of tiny models: the same vectors as torch's, int8 made and measured, and a store of int8 vectors."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.config import Embedding, load_config
from mos_pipeline.errors import WorkerError
from mos_pipeline.messages import embedded_text
from mos_pipeline.stages.openvino_encoder import OpenVinoEncoder
from mos_pipeline.stages.optimise import Bounds, OptimiseStage, Talk
from mos_pipeline.stages.sentence_transformer import SentenceTransformerBackend
from mos_pipeline.stages.variant_backend import VariantBackend
from tests.cli.common import REPO, Here, records, write
from tests.support import page_text
from tests.tiny_models import make_bert

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("kept_environment")]

pytest.importorskip("openvino")
pytest.importorskip("nncf")

TEXTS = [*(" ".join(page_text(number)) for number in range(24)), "", "beagle " * 500]
LONE = "half of a pair: \ud83d, as chat exports hold it"
PAGES = [*records(6), {**records(1)[0], "user_input": LONE}]
CALIBRATION = [embedded_text(page["user_input"], page["agent_response"]) for page in PAGES]
PROMPTS = {"query": "query: ", "passage": "passage: "}
SHAPES: dict[str, dict[str, Any]] = {"dense": {"dense": 40}, "cls": {"pooling": "cls", "longest": 61}}
NONE_LOST = Bounds(0.0, 0.0, kept=True)


class Made(NamedTuple):
    """Tiny models in a cache, with their fp32 forms; ``tiny`` has prompts, and an int8 form.

    Attributes:
        told: what loading each tells, by torch and by OpenVINO, and whether the latter computes it alone.
        int8: what was told of the int8 form that was kept.
        vectors: of each model, by torch and by OpenVINO, of documents and of queries.
    """

    root: Path
    told: dict[str, Any]
    int8: dict[str, Any]
    vectors: dict[str, Any]

    @property
    def settings(self) -> Embedding:
        return settings_for(self.root / "tiny")

    @property
    def environment(self) -> dict[str, str]:
        names = ("backend", "model", "cache_dir")
        return {f"MOS_PIPELINE_EMBEDDING__{name.upper()}": str(getattr(self.settings, name)) for name in names}


def settings_for(model: Path, **changes: Any) -> Embedding:
    given = {"backend": "openvino", "model": str(model), "cache_dir": str(model.parent / "cache"), **changes}
    return load_config({"embedding": given}, environ={}).embedding


def vectors(backend: Any, *, query: bool = False) -> Any:
    return backend.encode(backend.prepare(TEXTS, query=query)).astype(np.float32)


def make_all(root: Path) -> None:
    """Make models, forms and vectors, in a process of its own: what traces a model leaves threads behind."""
    settings = settings_for(make_bert(root / "tiny", prompts=PROMPTS))
    talk = Talk([*TEXTS[:24], LONE], [(TEXTS[3][:20], [3]), (TEXTS[9][:20], [9]), (LONE, [24])])
    int8 = OptimiseStage(settings, CALIBRATION, [talk], NONE_LOST).prepare()
    told, found = dict[str, Any](), dict[str, Any]()
    for name, shape in {"tiny": {}, **SHAPES}.items():
        wanted = settings_for(root / name if name == "tiny" else make_bert(root / name, **shape))
        ours, theirs = VariantBackend(wanted), SentenceTransformerBackend(replace(wanted, backend="torch"))
        told[name] = {"ours": ours.load(), "theirs": theirs.load(), "alone": isinstance(ours._inner, OpenVinoEncoder)}
        for who, backend in (("ours", ours), ("theirs", theirs)):
            found |= {f"{name}, {who}, {query}": vectors(backend, query=query) for query in (False, True)}
    (root / "told.json").write_text(json.dumps({"told": told, "int8": int8}))
    np.savez(root / "vectors.npz", **found)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("made")
    code = "import sys, pathlib; from tests.test_openvino import make_all; make_all(pathlib.Path(sys.argv[1]))"
    ran = subprocess.run([sys.executable, "-c", code, str(root)], cwd=REPO, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    with np.load(root / "vectors.npz") as found:
        return Made(root, **json.loads((root / "told.json").read_text()), vectors=dict(found))


@pytest.mark.parametrize(("name", "alone"), [("tiny", True), ("cls", True), ("dense", False)])
def test_fp32_vectors_are_torchs(made: Made, name: str, *, alone: bool) -> None:
    told = made.told[name]
    assert told["alone"] is alone
    assert {**told["ours"], "backend": ""} == {**told["theirs"], "backend": ""}
    for query in (False, True):
        ours, theirs = (made.vectors[f"{name}, {who}, {query}"] for who in ("ours", "theirs"))
        assert (ours * theirs).sum(axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=2e-3)
    assert told["ours"].get("document_prompt", "") == ("passage: " if name == "tiny" else "")


def test_fewer_numbers_of_a_vector_are_scaled_again(made: Made) -> None:
    backend = VariantBackend(replace(made.settings, model_kwargs={"truncate_dim": 20}))
    assert (backend.load()["dimension"], backend.load()["options"]) == (20, {"truncate_dim": 20})
    kept = made.vectors["tiny, theirs, False"][:, :20]
    assert vectors(backend) == pytest.approx(kept / np.linalg.norm(kept, axis=1, keepdims=True), abs=2e-3)


def test_a_batch_of_any_order_and_number_of_threads_gives_the_same(made: Made) -> None:
    backend = VariantBackend(made.settings)
    backend.load()
    items = backend.prepare(TEXTS)
    together = backend.encode(items).astype(np.float32)
    backend.use_threads(3)
    assert np.abs(backend.encode(items[::-1])[::-1].astype(np.float32) - together).max() < 2e-3
    assert np.abs(backend.encode(items[5:6]).astype(np.float32) - together[5:6]).max() < 2e-3


def test_texts_of_many_lengths_come_in_few_shapes(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = VariantBackend(made.settings)
    backend.load()
    encoder, shapes = backend._inner, set[tuple[int, int]]()
    assert isinstance(encoder, OpenVinoEncoder)
    filled = encoder._filled

    def noted(items: Any, part: Any) -> Any:
        given = filled(items, part)
        shapes.add(given["input_ids"].shape)
        return given

    monkeypatch.setattr(encoder, "_filled", noted)
    items = backend.prepare([" ".join(["beagle"] * words) for words in range(1, 61)])
    alone = np.concatenate([backend.encode([item]) for item in items]).astype(np.float32)
    assert len({item.length for item in items}) == 60
    assert len(shapes) <= 8
    together = backend.encode(items).astype(np.float32)
    assert np.abs(together - alone).max() < 2e-3
    assert {texts for texts, _ in shapes} <= {1, 2, 4, 8, 16, 32}


def test_torch_is_not_imported_for_a_form_that_is_there(made: Made) -> None:
    code = (
        "import sys; from mos_pipeline.config import load_config; from mos_pipeline.stages.embed import EmbedStage;"
        "EmbedStage(load_config().embedding).prepare(); print({'torch', 'sentence_transformers'} & set(sys.modules))"
    )
    environment = {**os.environ, **made.environment}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_the_texts_that_are_learned_from_stay_nowhere_and_the_cache_is_private(made: Made) -> None:
    for path in [made.root / "cache", *(made.root / "cache").rglob("*")]:
        assert not path.stat().st_mode & 0o077, path
        assert path.is_dir() or b"chat exports" not in path.read_bytes(), path


def test_int8_is_measured_and_a_model_of_its_own(made: Made) -> None:
    assert made.int8["kept"]
    assert made.int8["digest"] != made.int8["source"]
    assert 0.5 < made.int8["cosine_least"] <= made.int8["cosine_mean"] < 1.0, "its weights are others"
    small = VariantBackend(replace(made.settings, precision="int8"), made.int8["digest"])
    told = small.load()
    assert (told["digest"], told["precision"]) == (made.int8["digest"], "int8")


def test_int8_weights_that_have_changed_are_refused(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.settings.cache_dir, tmp_path / "cache")
    (weights,) = (tmp_path / "cache").glob("*-int8-*/openvino/*.bin")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    changed = replace(made.settings, precision="int8", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(WorkerError, match="not those that were made"):
        VariantBackend(changed).load()


def test_a_store_remembers_its_int8_model(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, store = Here(capsys), tmp_path / "store"
    for name, value in {**made.environment, "MOS_PIPELINE_LLM__PROCESSES": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__PRECISION", "int8")
    pages = write(tmp_path / "pages.jsonl", records(12))
    assert here("ingest", pages, "--store", store) == 0, here.err
    assert here.json("stats", "--store", store)["model"]["digest"] == made.int8["digest"]
    asked = ("query", "--store", store, "--user", "user 0", "--assistant", "helper", "number3")
    assert not here.json(*asked)["degraded"]
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__PRECISION", "fp32")
    assert here(*asked) == ExitCode.STORE
    assert "precision 'int8' there, 'fp32' here" in here.err
    shutil.copytree(made.settings.cache_dir, tmp_path / "cache", ignore=shutil.ignore_patterns("*-int8-*"))
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__CACHE_DIR", str(tmp_path / "cache"))
    told = here.json("reembed", "--store", store)
    assert (told["model"]["precision"], told["left"]) == ("fp32", 0)
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__PRECISION", "int8")
    assert here("reembed", "--store", store) == ExitCode.WORKER
    assert "mos-pipeline optimize-model --backend openvino" in here.err


def test_the_command_prints_what_was_measured(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Here(capsys)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    pages = write(tmp_path / "pages.jsonl", PAGES)
    told = here.json("optimize-model", "--calibrate", pages, "--least-cosine", "0", "--most-recall-lost", "1")
    assert (told["kept"], told["within"]) == (True, True)
    assert (told["digest"], told["texts"]) == (made.int8["digest"], len(PAGES)), "it is there, and measured again"
    assert (told["questions"], told["pages"]) == (56, 200), "with the sample"
    before = set(Path(made.settings.cache_dir).iterdir())
    beyond = here.json("optimize-model", "--calibrate", pages, "--least-cosine", "1.1", "--keep-anyway")
    assert (beyond["kept"], beyond["within"]) == (True, False)
    assert here("optimize-model", "--calibrate", pages, "--least-cosine", "1.1") == ExitCode.WORKER
    assert f"{told['folder']}: kept before, but the mean cosine must be 1.1 at least" in here.err
    other = write(tmp_path / "others.jsonl", records(3))
    assert here("optimize-model", "--calibrate", other, "--least-cosine", "1.1") == ExitCode.WORKER
    assert re.search(r"kept in +nowhere", here.out)
    assert "not kept: the mean cosine must be 1.1 at least" in here.err
    assert set(Path(made.settings.cache_dir).iterdir()) == before
