"""The static tier: bulk loads by a table of word pieces, which the store keeps, and which is lifted later."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mos_pipeline import MemoryPipeline, ModelMismatchError, ModelNotFoundError, Retrieved, WorkerError
from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.config import Embedding, load_config
from mos_pipeline.errors import StoreDamagedError
from mos_pipeline.stages import static_backend
from mos_pipeline.stages.backend import Prepared
from mos_pipeline.stages.static_backend import StaticBackend
from mos_pipeline.store.backup import backup_store, restore_store
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.models import TABLE, TOKENIZER
from mos_pipeline.store.verify import verify_store
from tests.cli.common import Here, records, write
from tests.faults.common import check_consistent, nothing_left, until
from tests.readers.common import IDLE_S, SETTINGS, fill, settled
from tests.support import all_pages, page_text
from tests.test_reembed import derived
from tests.tiny_models import make_bert, make_distilled

DIMENSION, PAGES = 24, 40
TEXTS = [
    *(" ".join(page_text(number)) for number in range(8)),
    "User: A beagle, in the garden?\n Assistant:  Winter at the harbour. ",
    "beagle " * 300,
    "\n " * 200 + "velvet whistle",
    "漢字" * 60 + " orchard",
    "Ω ж 🙂 x\ty",
]


class Place:
    """A base model that can't be loaded, and what was distilled from it, in a cache."""

    def __init__(self, root: Path) -> None:
        self.base, self.cache, self.store = root / "base", root / "cache", root / "store"
        self.model = make_distilled(self.cache, self.base)

    def settings(self, **changes: Any) -> dict[str, Any]:
        own = {"embedding__tier": "static", "embedding__model": str(self.base), "embedding__cache_dir": str(self.cache)}
        return {**SETTINGS, "runtime__restart_backoff_s": 0.01, **own, **changes}

    def open(self, store: Path | None = None, **changes: Any) -> MemoryPipeline:
        return MemoryPipeline.open(store or self.store, **self.settings(**changes))

    @property
    def kept(self) -> Path:
        """Where the store has its copy."""
        return StoreFolder(self.store).models / f"static-{self.model.about['digest'][:32]}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("static")
    place = Place(root)
    with place.open() as memory:
        fill(memory, "ann", range(PAGES))
        settled(memory)
    return root


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    shutil.copytree(made, tmp_path / "place")
    return Place(tmp_path / "place")


def ask(memory: MemoryPipeline, number: int) -> Retrieved:
    return memory.retrieve("ann", page_text(number)[0], k=3)


def found(memory: MemoryPipeline) -> list[list[tuple[str, float | None]]]:
    """What questions find, with the cosines; a page may have come since its vector."""
    answers = [ask(memory, number) for number in range(0, PAGES, 7)]
    assert not any(answer.degraded for answer in answers)
    return [[(hit.page.page_id, hit.dense) for hit in answer.pages] for answer in answers]


def in_words_alone(memory: MemoryPipeline) -> None:
    answer = memory.retrieve("ann", "number3", k=1, timeout=0.5)
    assert answer.degraded
    assert "number3 " in answer.pages[0].page.user_input


# A store of the static tier


@pytest.mark.usefixtures("kept_environment")
def test_pages_are_found_by_a_static_models_vectors(place: Place) -> None:
    with nothing_left(), place.open() as memory:
        settled(memory)
        model = memory.stats().model
        assert (model["tier"], model["dimension"], model["model"]) == ("static", DIMENSION, "base")
        assert model["digest"] == place.model.about["digest"]
        assert memory.sessions("ann")
        for number in range(PAGES):
            hit = ask(memory, number).pages[0]
            assert f"number{number} " in hit.page.user_input
            assert hit.dense is not None
        backend = StaticBackend(load_config(place.settings(), environ={}).embedding)
        backend.load()
        page = all_pages(memory)[5]
        question = page_text(11)[0]
        one, other = vectors(backend, [f"User: {page.user_input} Assistant: {page.agent_response}", question])
        hits = {hit.page.page_id: hit.dense for hit in memory.retrieve("ann", question, k=PAGES).pages}
        assert hits[page.page_id] == pytest.approx(float(one @ other), abs=2e-3)
        maps = Path(f"/proc/{memory.stats().workers['embedder'].pids[0]}/maps").read_text()
        assert "tokenizers" in maps
        assert "torch" not in maps, "nothing of the model's own libraries is loaded"


def test_the_store_keeps_its_static_model_privately_and_opens_anywhere(place: Place, tmp_path: Path) -> None:
    with place.open() as memory:
        before = found(settled(memory))
    lying = list(StoreFolder(place.store).models.rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in lying if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in lying if path.is_file()} == {0o600}
    elsewhere = place.store.rename(tmp_path / "elsewhere")
    shutil.rmtree(place.cache)
    shutil.rmtree(place.base)  # of the model itself nothing but the name is needed
    with place.open(elsewhere, embedding__model="base") as memory:
        assert found(settled(memory)) == before
        fill(memory, "ann", range(PAGES, PAGES + 3))
        settled(memory)
        assert ask(memory, PAGES + 1).pages[0].dense is not None
        with place.open(elsewhere, embedding__model="base", read_only=True) as reader:
            assert ask(reader, PAGES + 1).pages == ask(memory, PAGES + 1).pages
    assert not place.cache.exists()


def test_the_same_weights_under_another_name_are_the_same_model(place: Place) -> None:
    other = place.base.rename(place.base.with_name("renamed"))
    with place.open(embedding__model=str(other)) as memory:
        assert not ask(settled(memory), 3).degraded
    (other / TABLE).write_bytes(b"others")
    with pytest.raises(ModelMismatchError, match=r"distilled_from '\w+' there, '\w+' here"):
        place.open(embedding__model=str(other))


@pytest.mark.parametrize("damage", ["missing", "cut", "other pieces"])
def test_a_copy_that_cant_be_used_is_made_good_from_the_cache(place: Place, damage: str) -> None:
    with place.open() as memory:
        before = found(settled(memory))
    _damage(place.kept, damage)
    assert ["static model of the vectors" in problem.reason for problem in verify_store(place.store).problems] == [True]
    with place.open() as memory:
        assert found(settled(memory)) == before
    assert verify_store(place.store).ok
    for name in (TABLE, TOKENIZER):
        assert (place.kept / name).read_bytes() == (place.model.folder / name).read_bytes()


def _damage(kept: Path, how: str) -> None:
    if how == "missing":
        shutil.rmtree(kept)
    elif how == "cut":
        os.truncate(kept / TABLE, 1000)
    elif how == "other pieces":
        told = (kept / TOKENIZER).read_text("utf-8")
        (kept / TOKENIZER).write_text(told.replace('"beagle"', '"?"').replace('"orchard"', '"beagle"'), "utf-8")
    elif how == "no about":
        (kept / "about.json").unlink()
    else:
        (kept / "about.json").write_text("{")


@pytest.mark.parametrize("damage", ["no about", "about garbled"])
def test_a_sound_copy_is_used_whatever_has_become_of_what_tells_of_it(place: Place, damage: str) -> None:
    with place.open() as memory:
        before = found(settled(memory))
    _damage(place.kept, damage)
    shutil.rmtree(place.cache)
    shutil.rmtree(place.base)
    assert verify_store(place.store).ok
    with place.open(embedding__model="base") as memory:
        assert found(settled(memory)) == before


@pytest.mark.parametrize("damage", ["cut", "other pieces"])
def test_a_copy_is_not_deleted_where_nothing_takes_its_place(place: Place, damage: str) -> None:
    _damage(place.kept, damage)
    shutil.rmtree(place.cache)
    shutil.rmtree(place.base)
    before = {path: path.read_bytes() for path in place.kept.iterdir()}
    with place.open(embedding__model="base") as memory:
        memory.add("ann", "number900 is new", "")
        with pytest.raises(ModelNotFoundError, match=f"{place.kept}: the static model .* damaged.*reembed=True"):
            memory.wait_idle(IDLE_S)
        in_words_alone(memory)
    assert {path: path.read_bytes() for path in place.kept.iterdir()} == before


def test_opening_deletes_nothing_that_is_no_static_model_of_ours(tmp_path: Path) -> None:
    store, others = tmp_path / "store", tmp_path / "others"
    MemoryPipeline.open(store, **SETTINGS, workers=False).close()
    (others / "static-of-others").mkdir(parents=True)
    models = StoreFolder(store).models
    models.symlink_to(others)
    MemoryPipeline.open(store, **SETTINGS, workers=False).close()
    assert (others / "static-of-others").is_dir()
    models.unlink()
    for name in ("static-0123", ".making-0123", "mine"):
        (models / name).mkdir(parents=True)
    MemoryPipeline.open(store, **SETTINGS, workers=False).close()
    assert [path.name for path in models.iterdir()] == ["mine"]


@pytest.mark.parametrize("there", ["nothing", "another one"])
def test_a_static_model_that_is_lost_is_told_and_pages_are_found_by_their_words(place: Place, there: str) -> None:
    shutil.rmtree(StoreFolder(place.store).models)
    shutil.rmtree(place.cache)
    model, why = str(place.base), "another one was distilled"
    if there == "nothing":
        shutil.rmtree(place.base)
        model, why = "base", "was not found"
    else:
        make_distilled(place.cache, place.base, seed=1)
    with nothing_left(), place.open(embedding__model=model) as memory:
        memory.add("ann", "number900 is new", "")
        with pytest.raises(ModelNotFoundError, match=f"{place.kept}: the static model .*{why}.*reembed=True"):
            memory.wait_idle(IDLE_S)
        in_words_alone(memory)
        assert memory.retrieve("ann", "number900", k=1, timeout=0.5).pages[0].page.user_input == "number900 is new"
    assert not StoreFolder(place.store).models.exists(), "the wrong one was not put there"


def test_where_it_is_lost_the_vectors_are_made_again_by_another_one(place: Place) -> None:
    shutil.rmtree(StoreFolder(place.store).models)
    shutil.rmtree(place.cache)
    other = make_distilled(place.cache, place.base, seed=1)
    with place.open(reembed=True) as memory:
        settled(memory)
        assert memory.stats().model["digest"] == other.about["digest"]
        assert not memory.stats().unlifted
        found(memory)
    with place.open(reembed=True) as memory:
        settled(memory)
        assert memory.stats().embedded_texts == 0, "it is that already"
    assert verify_store(place.store).ok


def test_a_backup_has_the_model_too(place: Place, tmp_path: Path) -> None:
    with place.open() as memory:
        before = found(settled(memory))
        backup_store(place.store, tmp_path / "backup")
    restore_store(tmp_path / "backup", tmp_path / "restored")
    shutil.rmtree(place.cache)
    with place.open(tmp_path / "restored") as memory:
        assert found(settled(memory)) == before
    (tmp_path / "backup" / place.kept.relative_to(place.store) / TABLE).write_bytes(b"x")
    with pytest.raises(StoreDamagedError, match="static model of the vectors is damaged"):
        restore_store(tmp_path / "backup", tmp_path / "again")


def test_a_backup_without_the_model_says_so(place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(StoreFolder(place.store).models)
    backup_store(place.store, tmp_path / "backup")
    assert f"{tmp_path / 'backup'}: the static model of the vectors can't be read" in caplog.text
    with place.open(tmp_path / "backup") as memory:  # the cache has it
        assert not ask(settled(memory), 3).degraded


def test_a_reader_mends_nothing(place: Place) -> None:
    os.truncate(place.kept / TABLE, 1000)
    with place.open(read_only=True) as reader:
        assert not ask(reader, 3).degraded, "the cache has it"
    assert (place.kept / TABLE).stat().st_size == 1000


# Lifted, and back

FULL: dict[str, Any] = {"embedding__backend": "fake", "embedding__fake_ms_per_text": 20.0}


def test_it_is_lifted_to_the_full_model_and_back(place: Place) -> None:
    with pytest.raises(ModelMismatchError, match="tier 'static' there, 'full' here"):
        place.open(embedding__tier="full")
    with place.open() as memory:
        before = derived(settled(memory))
    with nothing_left(), place.open(reembed=True, **FULL) as memory:
        until(lambda: memory.stats().restored, "it is read")
        assert memory.stats().unlifted > PAGES
        assert "number3 " in memory.retrieve("ann", "number3", k=1, timeout=0.5).pages[0].page.user_input
        settled(memory)
        assert memory.stats().model["dimension"] == 384
        assert derived(memory) == before
        check_consistent(memory)
    with pytest.raises(ModelMismatchError):
        place.open()
    shutil.rmtree(place.cache)
    with place.open(**FULL) as memory:
        assert ask(settled(memory), 3).pages[0].dense is not None
        assert not any(StoreFolder(place.store).models.iterdir()), "nothing is made with it any more"
    make_distilled(place.cache, place.base)
    with place.open(reembed=True) as memory:
        settled(memory)
        assert (memory.stats().model["tier"], memory.stats().unlifted) == ("static", 0)
        assert derived(memory) == before
    assert place.kept.is_dir()
    with place.open(reembed=True) as memory:  # there is nothing to do any more
        assert memory.stats().unlifted == 0


@pytest.mark.slow
@pytest.mark.parametrize("target", ["full", "static"])
def test_killed_while_it_is_lifted_it_goes_on(place: Place, target: str) -> None:
    with place.open() as memory:
        before = derived(settled(memory))
    if target == "static":
        with place.open(reembed=True, **{**FULL, "embedding__fake_ms_per_text": 0.0}) as memory:
            settled(memory)
    changes = FULL if target == "full" else {}
    with lifting(place, changes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        process.send_signal(signal.SIGKILL)
    with place.open(**changes) as memory:  # without a flag: MANIFEST names the new model
        settled(memory)
        assert memory.stats().unlifted == 0
        assert memory.stats().model.get("tier", "full") == target
        assert derived(memory) == before
        check_consistent(memory)
    assert verify_store(place.store).ok


@contextmanager
def lifting(place: Place, changes: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    settings = {**place.settings(), **changes}
    code = (
        "import sys, time; from mos_pipeline import MemoryPipeline\n"
        f"memory = MemoryPipeline.open({str(place.store)!r}, reembed=True, **{settings!r})\n"
        "print('open', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_the_command_line_loads_and_lifts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, here = Place(tmp_path), Here(capsys)
    lines = write(tmp_path / "pages.jsonl", records(12))
    for name, value in {"MODEL": place.base, "CACHE_DIR": place.cache}.items():
        monkeypatch.setenv(f"MOS_PIPELINE_EMBEDDING__{name}", str(value))
    monkeypatch.setenv("MOS_PIPELINE_LLM__PROCESSES", "1")
    assert here.json("ingest", lines, "--store", place.store, "--tier", "static")["accepted"] == 12
    assert here("stats", "--store", place.store) == 0
    assert f"base, {DIMENSION} dimensions, static tier" in here.out
    asked = ("query", "--store", place.store, "--user", "user 0", "--assistant", "helper", "number3")
    assert here(*asked) == ExitCode.STORE
    assert "tier 'static' there, 'full' here" in here.err
    here("doctor", "--store", place.store)
    assert "base (static)" in here.out
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__TIER", "static")
    assert not here.json(*asked)["degraded"]
    here("doctor", "--store", place.store)
    assert f"the store's own, in {place.kept}" in here.out
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__BACKEND", "fake")
    told = here.json("reembed", "--store", place.store, "--tier", "full")
    assert (told["left"], told["model"]["dimension"]) == (0, 384)
    assert told["made_again"] >= 12


# Distilled


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the model's libraries warn of their own affairs
@pytest.mark.usefixtures("kept_environment")
def test_it_is_distilled_where_it_is_first_needed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from sentence_transformers import SentenceTransformer

    base = make_bert(tmp_path / "tiny")
    settings = {**SETTINGS, "embedding__model": str(base), "embedding__cache_dir": str(tmp_path / "cache")}
    caplog.set_level("INFO", "mos_pipeline.stages.static_tier")
    with nothing_left(), MemoryPipeline.open(tmp_path / "store", embedding__tier="static", **settings) as memory:
        fill(memory, "ann", range(6))
        settled(memory)
        assert memory.stats().model["tier"] == "static"
        assert not ask(memory, 3).degraded
    assert "distilling a static model" in caplog.text
    with pytest.raises(WorkerError, match="model2vec can't distil this model"):
        StaticBackend(Embedding(tier="static", model=str(_unreadable(tmp_path)), cache_dir=str(tmp_path))).load()
    (cached,) = (tmp_path / "cache").iterdir()
    model = SentenceTransformer(str(cached), device="cpu")
    expected = np.asarray(model.encode(TEXTS, show_progress_bar=False), np.float32)
    backend = StaticBackend(Embedding(tier="static", model=str(base), cache_dir=str(tmp_path / "cache")))
    backend.load()
    assert backend._by_words
    assert np.abs(vectors(backend, TEXTS) - expected).max() < 2e-3
    with MemoryPipeline.open(tmp_path / "store", reembed=True, **settings) as memory:
        settled(memory)
        assert (memory.stats().model["dimension"], memory.stats().unlifted) == (32, 0)
        assert ask(memory, 3).pages[0].dense is not None


def _unreadable(folder: Path) -> Path:
    (folder / "unreadable").mkdir()
    (folder / "unreadable" / TABLE).write_bytes(b"x")
    return folder / "unreadable"


@pytest.mark.usefixtures("kept_environment")
def test_without_model2vec_it_is_told_what_to_install(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(place.cache)
    monkeypatch.setitem(sys.modules, "model2vec", None)
    settings = load_config(place.settings(), environ={}).embedding
    with pytest.raises(WorkerError, match=r"base can't be distilled without model2vec .*pip install .*\[static\]"):
        StaticBackend(settings).load()
    assert not any(place.cache.iterdir()), "nothing half made is left"


# The backend


@pytest.fixture
def backend(place: Place, kept_environment: None) -> StaticBackend:
    loaded = StaticBackend(load_config(place.settings(), environ={}).embedding)
    loaded.load()
    return loaded


def vectors(backend: StaticBackend, texts: list[str]) -> npt.NDArray[np.float32]:
    return backend.encode(backend.prepare(texts)).astype(np.float32)


def pieces(prepared: list[Prepared]) -> list[Any]:
    return [item.content for item in prepared]


def test_words_that_are_remembered_are_split_as_whole_texts_are(backend: StaticBackend) -> None:
    assert backend._by_words
    by_words = pieces(backend.prepare(TEXTS))
    assert pieces(backend.prepare(TEXTS)) == by_words
    backend._by_words = False
    assert pieces(backend.prepare(TEXTS)) == by_words
    assert max(map(len, by_words)) == 128
    assert all(len(word) <= static_backend.MAX_WORD_CHARS for word in backend._words)


def test_what_is_remembered_stays_bounded(backend: StaticBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_backend, "MAX_WORDS", 50)
    before = vectors(backend, TEXTS)
    for number in range(40):
        backend.prepare([" ".join(f"w{number}x{place}" for place in range(30))])
        assert len(backend._words) <= 50 + 30 + len(TEXTS) * 30
    assert np.array_equal(vectors(backend, TEXTS), before)


def test_vectors_have_length_one_and_do_not_depend_on_their_company(backend: StaticBackend) -> None:
    together = vectors(backend, TEXTS)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=2e-3)
    assert np.array_equal(together, np.concatenate([vectors(backend, [text]) for text in TEXTS]))
    assert not vectors(backend, ["", " \n "]).any(), "nothing is like a text without a word"
