"""The original library opens what was exported: its own wheel, in an environment of its own.

Its pinned dependencies are left out (they ask for a GPU's faiss and an old numpy); faiss for the processor stands in,
and for its model one that makes vectors from words.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.common import environment
from tests.legacy.common import ASSISTANT, Json, migrate, tom
from tests.support import open_fake

WHEELS = ("memoryos-pro==0.1.0", "faiss-cpu")
INSTALL_S = 180

MODEL = """
import numpy as np
from mos_pipeline.config import Embedding
from mos_pipeline.stages.fake_backend import FakeBackend

class SentenceTransformer:
    def __init__(self, name):
        self.backend = FakeBackend(Embedding(backend="fake"))

    def encode(self, texts, convert_to_numpy=True):
        return self.backend.exact(self.backend.prepare(texts)).astype(np.float32)
"""

PROGRAM = """
import json, sys
from contextlib import redirect_stdout
with redirect_stdout(sys.stderr):
    import memoryos.mid_term
    from memoryos import Memoryos
    memoryos.mid_term.llm_extract_keywords = lambda *_, **__: set()  # it would ask an endpoint
    memory = Memoryos("tom", "no key", sys.argv[1], assistant_id=sys.argv[2], openai_base_url="http://127.0.0.1:9/v1")
    found = memory.retriever.retrieve_context("question 4 about thing4", "tom", -1.0, -1.0)
    dog = memory.user_long_term_memory.search_user_knowledge("a dog named Rex", threshold=0.3)
print(json.dumps({
    "file": memoryos.mid_term.__file__,
    "short": memory.short_term_memory.get_all(),
    "sessions": memory.mid_term_memory.sessions,
    "heap": len(memory.mid_term_memory.heap),
    "profile": memory.get_user_profile_summary(),
    "told": [one["knowledge"] for one in memory.get_assistant_knowledge_summary()],
    "pages": [[page["page_id"], page["meta_info"], page["pre_page"]] for page in found["retrieved_pages"]],
    "knowledge": [one["knowledge"] for one in found["retrieved_user_knowledge"]],
    "of_assistant": [one["knowledge"] for one in found["retrieved_assistant_knowledge"]],
    "dog": [one["knowledge"] for one in dog],
}))
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the original library; skipped where it can't be had."""
    folder = tmp_path_factory.mktemp("original")
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--retries", "1", "--target", str(folder), *WHEELS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the original library could not be fetched within {INSTALL_S} s")
    if done.returncode:
        pytest.skip(f"the original library can't be fetched: {done.stderr.strip().splitlines()[-1:]}")
    (folder / "sentence_transformers.py").write_text(MODEL)
    return folder


def opened_by(original: Path, data: Path) -> Json:
    """Return what the original library tells of a data folder."""
    env = environment()
    env["PYTHONPATH"] = f"{original}:{env['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(data), ASSISTANT],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout)
    assert found.pop("file").startswith(str(original))
    return found


@pytest.mark.slow
def test_the_original_opens_what_was_exported(original: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    migrate(tom(tmp_path / "legacy"), store)
    with open_fake(store) as memory:
        memory.add(
            "tom", "one more question", "one more answer", assistant_id=ASSISTANT, timestamp="2026-03-01 10:00:00"
        )
        memory.wait_idle(60)
    done = subprocess.run(
        [sys.executable, "-m", "mos_pipeline", "export", str(out), "--store", str(store), "--format", "memoryos"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = opened_by(original, out)
    assert [page["user_input"] for page in found["short"]] == [
        "question 20 about thing20",
        "question 21 about thing21",
        "one more question",
    ]
    sessions = list(found["sessions"].values())
    assert [one["summary"] for one in sessions] == ["summary of session_a", "summary of session_b"]
    assert found["heap"] == 2
    assert [(one["access_count_lfu"], one["L_interaction"], len(one["details"])) for one in sessions] == [
        (6, 1, 3),  # its own retrieval counts
        (2, 1, 3),
    ]
    assert found["profile"] == "Openness (High): tries new things, likes tea and walks."
    assert found["told"] == found["of_assistant"] == ["the assistant recommended a book"]
    assert found["pages"][0] == ["page_00000004", "of things and more", "page_00000001"]
    assert len(found["pages"]) == 6
    assert found["dog"] == ["tom has a dog named Rex"]


@pytest.mark.slow
def test_what_it_saves_comes_back(original: Path, tmp_path: Path) -> None:
    legacy = tom(tmp_path / "legacy")
    opened_by(original, legacy)  # its retrieval counts, and it writes all of it
    report = migrate(legacy, tmp_path / "store")
    assert report.set_aside == []
    assert (report.pages_mid, report.pages_short, report.sessions, report.reused) == (6, 2, 2, 11)
    with open_fake(tmp_path / "store", workers=False) as memory:
        assert sorted(one.visits for one in memory.sessions("tom", assistant_id=ASSISTANT)) == [2, 3]
