"""Other runtimes' forms of a model, without any runtime: names, what is chosen, what is told where something misses."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from mos_pipeline import config
from mos_pipeline.cli.labelled import SAMPLE, locomo_talks, sample_calibration, sample_talks
from mos_pipeline.cli.optimize_model import _thinned
from mos_pipeline.errors import InputError, ModelNotFoundError, WorkerError
from mos_pipeline.stages import model_cache, variants
from mos_pipeline.stages.identity import expected_identity, names_it, same_vectors
from mos_pipeline.stages.model_cache import all_cached, make_cached
from mos_pipeline.stages.models import ModelFiles, find_model
from mos_pipeline.stages.optimise import Bounds, Talk, compared, recall
from mos_pipeline.stages.tuning import (
    FIRST_PIECES,
    MOST_BATCH_S,
    best_pieces,
    best_threads,
    choose_pieces,
    choose_threads,
    thread_counts,
)
from mos_pipeline.stages.variants import entry_name, exported, find_exported, graph_digest, origin, quantised
from tests.test_embed import Backend, Clock, Dividing

REPO = Path(variants.__file__).parents[2]
STORED = {"model": "a-model", "backend": "openvino", "precision": "int8"}
FILES = ModelFiles("someone/a-model", Path("nowhere"), "ab" * 32)


def settings(cache: Path, **changes: Any) -> config.Embedding:
    return config.Embedding(**{"backend": "openvino", "cache_dir": str(cache), **changes})


def add_int8(cache: Path, digest: str, made: float, files: ModelFiles = FILES, **changes: Any) -> None:
    about = origin(settings(cache, precision="int8", **changes), files, "int8")
    name = f"{digest}-{about['backend']}"
    make_cached(cache, name, lambda _: {**about, "digest": digest, "made": made})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions of installed libraries, as the test wants them."""
    known = dict.fromkeys((*variants.LIBRARIES["openvino"], *variants.LIBRARIES["onnx"]), "1.0")

    def version(name: str) -> str:
        if name not in known:
            raise importlib.metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(variants, "version", version)
    return known


def test_an_entrys_name_tells_what_it_is_and_differs_with_all_it_was_made_by(tmp_path: Path) -> None:
    made_from = origin(settings(tmp_path), FILES, "fp32")
    name = entry_name(made_from, {"openvino": "1"})
    assert name.startswith("a-model-abababababab-openvino-fp32-")
    others = [
        entry_name(made_from, {"openvino": "2"}),
        entry_name(made_from, {"openvino": "1"}, "texts"),
        entry_name({**made_from, "precision": "int8"}, {"openvino": "1"}),
        entry_name({**made_from, "source": "cd" * 32}, {"openvino": "1"}),
        entry_name({**made_from, "backend": "onnx"}, {"openvino": "1"}),
        entry_name(origin(settings(tmp_path, model_kwargs={"model_kwargs": {"a": 1}}), FILES, "fp32"), {}),
    ]
    assert len({name, *others}) == 1 + len(others)
    assert name == entry_name(
        origin(settings(tmp_path, model_kwargs={"truncate_dim": 8}), FILES, "fp32"), {"openvino": "1"}
    )
    assert "/" not in entry_name({**made_from, "model": "../..//;rm"}, {})


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_missing_library_is_told_with_the_command(tmp_path: Path, installed: dict[str, str], backend: str) -> None:
    missing = variants.LIBRARIES[backend][1]
    del installed[missing]
    with pytest.raises(WorkerError, match=rf"{missing}.*pip install 'mos-pipeline\[{backend}\]'"):
        find_exported(settings(tmp_path, backend=backend), FILES)


def test_an_exported_form_is_made_once_for_each_version(tmp_path: Path, installed: dict[str, str]) -> None:
    calls = []

    def make(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        return {"made": 1.0}

    wanted = settings(tmp_path)
    assert find_exported(wanted, FILES) is None
    first = exported(wanted, FILES, make)
    assert first.about["digest"] == FILES.digest, "the weights are the model's own"
    assert exported(wanted, FILES, make) == first == find_exported(wanted, FILES)
    installed["openvino"] = "2.0"
    assert exported(wanted, FILES, make).folder != first.folder
    assert len(calls) == 2


def test_two_processes_that_export_at_once_keep_one(tmp_path: Path, installed: dict[str, str]) -> None:
    both = Barrier(2)

    def make(folder: Path) -> dict[str, Any]:
        both.wait(10)
        (folder / "weights").write_text(folder.name)
        return {"by": folder.name}

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: exported(settings(tmp_path), FILES, make), range(2)))
    assert found[0] == found[1]
    assert (found[0].folder / "weights").read_text() == found[0].about["by"], "its files are all of one"
    assert [path.name for path in tmp_path.iterdir()] == [found[0].folder.name]


def test_of_several_quantised_forms_the_stores_is_chosen_else_the_newest(tmp_path: Path) -> None:
    wanted = settings(tmp_path, precision="int8")
    with pytest.raises(ModelNotFoundError, match=r"no int8 form of someone/a-model.*optimize-model --backend openvino"):
        quantised(wanted, FILES)
    add_int8(tmp_path, "old", 1.0)
    add_int8(tmp_path, "new", 2.0)
    add_int8(tmp_path, "anothers", 3.0, FILES._replace(digest="cd" * 32))
    add_int8(tmp_path, "by another", 4.0, backend="onnx")
    assert quantised(wanted, FILES).about["digest"] == "new"
    assert quantised(wanted, FILES, "old").about["digest"] == "old"
    assert quantised(wanted, FILES, "gone").about["digest"] == "new"


def test_a_damaged_entry_is_no_model(tmp_path: Path) -> None:
    add_int8(tmp_path, "whole", 1.0)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / model_cache.ABOUT).write_text("{")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / model_cache.ABOUT).write_text("[]")
    assert [each.about["digest"] for each in all_cached(tmp_path)] == ["whole"]


def test_what_is_left_of_a_deleted_entry_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "weights").write_text("left")
    made = make_cached(tmp_path, "one", lambda folder: {"bytes": (folder / "weights").write_text("new")})
    assert (made.folder / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_a_killed_process_has_left_is_deleted_once_it_is_old(tmp_path: Path) -> None:
    for name in ("old", "young"):
        (tmp_path / f"{model_cache.MAKING}{name}").mkdir()
    os.utime(tmp_path / f"{model_cache.MAKING}old", (1.0, 1.0))
    make_cached(tmp_path, "one", lambda _: {})
    assert {path.name for path in tmp_path.iterdir()} == {"one", f"{model_cache.MAKING}young"}


def test_an_int8_store_is_known_by_its_own_digest_without_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mos_pipeline.stages.identity.find_model", lambda *_, **__: FILES)
    plain, small = settings(tmp_path), settings(tmp_path, precision="int8")
    add_int8(tmp_path, "of a store", 1.0)
    add_int8(tmp_path, "newer", 2.0)
    stored = {**expected_identity(small, "of a store"), "dimension": 8}
    assert (stored["digest"], stored["precision"]) == ("of a store", "int8")
    assert names_it(small, stored)
    assert not names_it(plain, stored)
    assert expected_identity(small)["digest"] == "newer"
    by_torch = {**expected_identity(config.Embedding()), "dimension": 8}
    assert same_vectors(by_torch, {**expected_identity(plain), "dimension": 8}), "whatever computes them"


def test_the_digest_is_of_weights_and_graph_alone(tmp_path: Path) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "model.bin").write_bytes(b"weights")
    (tmp_path / "openvino" / "model.xml").write_bytes(b"graph")
    before = graph_digest(tmp_path)
    (tmp_path / "README.md").write_text("x")
    assert graph_digest(tmp_path) == before
    (tmp_path / "openvino" / "model.bin").write_bytes(b"others!")
    assert graph_digest(tmp_path) != before


def test_threads_are_halved_only_where_that_is_as_quick() -> None:
    assert (thread_counts(2), thread_counts(8)) == ((2,), (8, 4))
    assert best_threads({8: 1.0, 4: 1.0}) == 4
    assert best_threads({8: 1.0, 4: 1.02}) == 4
    assert best_threads({8: 1.0, 4: 1.2}) == 8


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ([(1024, 0.5)], 1024),
        ([(1024, 0.10), (2048, 0.20)], 1024),
        ([(1024, 0.10), (2048, 0.18)], 2048),
        ([(1024, 0.10), (2048, 0.18), (4096, MOST_BATCH_S + 0.01)], 2048),
        ([(1024, 0.4), (2048, 0.5)], 1024),
    ],
    ids=["busy", "no gain", "gain", "too long", "the first is too long, too"],
)
def test_the_smallest_batch_of_about_the_best_rate_is_chosen(measured: list[tuple[int, float]], expected: int) -> None:
    assert best_pieces(measured) == expected


@pytest.mark.parametrize(
    ("fixed", "per_piece", "chosen", "tried"),
    [(0.0, 1e-3, 1024, [1024]), (0.004, 1e-5, 8192, [1024, 2048, 4096, 8192, 16384]), (0.0, 1e-6, 1024, [1024, 2048])],
    ids=["slow", "a large fixed part", "quick, all alike"],
)
def test_larger_batches_are_tried_while_they_win(fixed: float, per_piece: float, chosen: int, tried: list[int]) -> None:
    seen = list[int]()

    def work(pieces: int) -> float:
        seen.append(pieces)
        return fixed + per_piece * pieces

    assert choose_pieces(work) == chosen
    assert list(dict.fromkeys(seen)) == tried


class TunableBackend(Backend):
    """A fake one that is as quick with half the threads; a batch of 1,024 word pieces takes 9 % for its fixed part."""

    threads = 0

    def threads_to_try(self, cores: int) -> tuple[int, ...]:
        return (8, 4)

    def use_threads(self, threads: int) -> None:
        self.threads = threads


@pytest.mark.parametrize(("seconds", "chosen"), [({8: 1.0, 4: 1.0}, 4), ({8: 1.0, 4: 2.0}, 8)], ids=["4", "8"])
def test_the_threads_that_are_chosen_are_used(seconds: dict[int, float], chosen: int) -> None:
    backend = TunableBackend(Clock())
    assert choose_threads(backend, (8, 4), lambda: seconds[backend.threads]) == backend.threads == chosen


@pytest.mark.parametrize(
    ("given", "threads", "pieces"),
    [({}, 4, 2 * FIRST_PIECES), ({"threads": 3, "batch_word_pieces": 77}, 3, 77)],
    ids=str,
)
def test_what_the_settings_leave_open_is_measured(given: dict[str, Any], threads: int, pieces: int) -> None:
    from mos_pipeline.stages.embed import EmbedStage

    backend = TunableBackend(clock := Clock())
    info = EmbedStage(config.Embedding(backend="fake", **given), clock, backend).prepare()
    assert (info["threads"], info["batch_word_pieces"]) == (backend.threads, pieces) == (threads, pieces)


class DividingBackend(TunableBackend, Dividing):
    """A fake one that divides batches by itself, too."""


def test_batches_of_a_backend_that_divides_them_are_tried_with_texts_of_all_lengths() -> None:
    from mos_pipeline.stages.embed import EmbedStage

    backend = DividingBackend(clock := Clock())
    info = EmbedStage(config.Embedding(backend="fake"), clock, backend).prepare()
    mixed = [batch for batch in backend.batches if len({len(text.split()) for text in batch}) == 6]
    assert len({len(batch) for batch in mixed}) > 1  # of 1,024 word pieces, and of more
    assert info["batch_word_pieces"] == 2 * FIRST_PIECES


def test_what_is_left_over_of_a_batch_does_not_count() -> None:
    from mos_pipeline.stages.embed import EmbedStage

    stage = EmbedStage(config.Embedding(backend="fake"), clock := Clock(), backend := Backend(clock))
    stage.prepare()
    (item,) = backend.prepare(["word " * 300])
    count = FIRST_PIECES // item.length
    taken = 0.010 + 0.0001 * count * item.length
    assert stage._seconds_for([item], FIRST_PIECES) == pytest.approx(taken * FIRST_PIECES / (count * item.length))


def test_recall_counts_the_evidence_among_ten_pages() -> None:
    pages = np.eye(12, dtype=np.float32)
    asked = np.array([np.arange(12, 0, -1), np.arange(12)], np.float32)
    assert recall(pages, asked, [("", [0, 11]), ("", [2, 3])]).tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("cosine", "int8", "met"), [(0.996, 0.5, True), (0.98, 0.5, False), (0.996, 0.47, False)], ids=str
)
def test_bounds(cosine: float, int8: float, *, met: bool) -> None:
    told = {"cosine_mean": cosine, "recall_fp32": 0.5, "recall_int8": int8}
    assert Bounds(0.99, 0.02).met(told) is met


def test_a_form_is_compared_by_cosine_and_recall() -> None:
    fake = Backend(Clock())
    talk = Talk(["red bicycle", "green garden", "a violin"], [("where is the bicycle", [0]), ("violin", [2])])
    told = compared(fake, fake, [talk])
    assert told["cosine_mean"] == told["cosine_least"] == pytest.approx(1.0, abs=1e-3)
    assert (told["recall_fp32"], told["recall_int8"], told["pages"], told["questions"]) == (1.0, 1.0, 3, 2)


def test_the_sample_in_the_package_is_the_examples() -> None:
    for name in ("conversation.jsonl", "questions.jsonl"):
        assert (SAMPLE / name).read_bytes() == (REPO / "examples" / name).read_bytes()


def test_what_is_measured_with_is_not_calibrated_on() -> None:
    talks, learned = sample_talks(), set(sample_calibration())
    assert sum(len(talk.pages) for talk in talks) == 200
    assert sum(len(talk.questions) for talk in talks) == 16 + 40
    assert sum(page not in learned for talk in talks for page in talk.pages) == 40
    asked = next(talk for talk in talks if any("adrenaline" in text for text, _ in talk.questions))
    text, evidence = next((text, places) for text, places in asked.questions if "adrenaline" in text)
    assert "two fresh pens" in asked.pages[evidence[0]], text


@pytest.mark.parametrize(("length", "step"), [(3, 1), (7, 1), (8, 2), (100, 16)], ids=str)
def test_of_a_large_file_few_texts_are_in_memory(length: int, step: int) -> None:
    texts = [f"text {number}" for number in range(length)]
    assert _thinned(iter(texts), 4) == texts[::step]


def test_locomo_files_give_questions_with_evidence(tmp_path: Path) -> None:
    turns = [
        {"speaker": "Ann Bo"[4 * (n % 2) :][:3].strip(), "dia_id": f"D1:{n + 1}", "text": f"t{n}"} for n in range(4)
    ]
    talk = {"speaker_a": "Ann", "speaker_b": "Bo", "session_1": turns, "session_1_date_time": "1:00 pm on 1 May, 2023"}
    asked = [
        {"question": "who?", "evidence": ["D1:3", "D1:4"], "category": 1},
        {"question": "never?", "evidence": ["D1:1"], "category": 5},
        {"question": "gone?", "evidence": ["D9:9"], "category": 1},
    ]
    path = tmp_path / "talks.json"
    path.write_text(json.dumps([{"sample_id": "one", "conversation": talk, "qa": asked}]))
    [found] = locomo_talks(path)
    assert found.questions == [("who?", [1])]
    assert len(found.pages) == 2
    path.write_text(json.dumps([{"sample_id": "one", "conversation": talk}]))
    with pytest.raises(InputError, match="no questions with evidence"):
        locomo_talks(path)


def test_doctor_tells_what_misses_and_the_command(
    tmp_path: Path, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mos_pipeline.config import load_config
    from mos_pipeline.doctor.settings import check_model

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    given = {"backend": "openvino", "model": str(tmp_path / "model"), "cache_dir": str(tmp_path / "cache")}
    look: Callable[[str], dict[str, Any]] = lambda precision: {  # noqa: E731
        finding.what: finding
        for finding in check_model(
            tmp_path / "store", load_config({"embedding": {**given, "precision": precision}}, environ={})
        )
    }
    assert "it is made when the model is first loaded" in look("fp32")["model's form"].mend
    assert "mos-pipeline optimize-model --backend openvino" in look("int8")["model's form"].found
    for digest, made in (("cd" * 32, 1.0), ("ef" * 32, 2.0)):
        add_int8(tmp_path / "cache", digest, made, find_model(given["model"]))
    assert look("int8")["model's form"].found.endswith("ef" * 32), "the newest, for a new store"
    monkeypatch.setattr("mos_pipeline.doctor.settings._stored_model", lambda _: {"digest": "cd" * 32, **STORED})
    assert look("int8")["model's form"].found.endswith("cd" * 32), "the store's own"
    del installed["optimum-intel"]
    assert "pip install 'mos-pipeline[openvino]'" in look("fp32")["backend"].mend
