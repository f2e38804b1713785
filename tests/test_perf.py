"""The harness's own logic, and one small run of it; what it measures is nobody's business here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline import MemoryPipeline
from mos_pipeline.messages import encode
from perf import __main__ as harness
from perf import busy, embed, ingest, large, processes, scale, tasks
from perf.adds import row_of
from perf.children import Child
from perf.machine import PACKAGES, ROOT, commit, machine
from perf.options import Options, nested, read_settings
from perf.processes import CpuShare, cpu_seconds, disk_bytes, family, pss_bytes
from perf.result import Aim, BenchResult, Figure, at_least, at_most, table
from perf.texts import dataset_pages, question, synthetic_pages
from perf.timing import median, percentile, seconds
from tests.support import children

SAMPLES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200)
SHARES = st.floats(0.001, 1.0)


@given(SAMPLES, SHARES)
def test_a_percentile_is_a_sample_that_enough_samples_do_not_exceed(samples: list[float], share: float) -> None:
    value = percentile(samples, share)
    assert value in samples
    assert sum(sample <= value for sample in samples) >= share * len(samples)
    assert sum(sample < value for sample in samples) < share * len(samples)


def test_percentiles_of_a_hundred_samples_are_their_ranks() -> None:
    samples = [float(n) for n in range(100, 0, -1)]
    assert [percentile(samples, share) for share in (0.01, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]


@pytest.mark.parametrize(("samples", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_is_refused(samples: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="needs samples and a share"):
        percentile(samples, share)


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    assert median([4, 1, 3, 2]) == 2.5


def test_a_call_takes_some_time() -> None:
    assert seconds(lambda: sum(range(1000))) > 0


def test_a_figure_summarises_its_samples() -> None:
    figure = Figure.of("add", "µs", [3.0, 1.0, 2.0])
    assert (figure.samples, figure.median, figure.p99, figure.max, figure.met) == (3, 2.0, 3.0, 3.0, None)


@pytest.mark.parametrize(
    ("aims", "met"),
    [
        ((at_most(2),), True),
        ((at_most(1.9),), False),
        ((at_least(2),), True),
        ((at_least(2.1),), False),
        ((at_most(2), at_most(3, "p99")), True),
        ((at_most(2), at_most(2, "p99")), False),
        ((at_most(2.9, "max"),), False),
    ],
)
def test_a_figure_is_as_it_should_be_where_every_aim_is_met(aims: tuple[Aim, ...], met: bool) -> None:
    assert Figure.of("add", "µs", [3.0, 1.0, 2.0], *aims).met is met


def test_a_ratio_is_that_of_medians_and_of_percentiles() -> None:
    figure = Figure.ratio("paused / bare", [2.0, 4.0, 30.0], [1.0, 2.0, 3.0, 1.0], at_most(2.5))
    assert (figure.samples, figure.median, figure.p99, figure.max) == (3, 4 / 1.5, 10.0, None)
    assert figure.met is False


def test_the_table_shows_each_figure_with_its_aim_and_whether_it_is_met() -> None:
    figures = [
        Figure.of("add in bursts", "µs", [1.0, 2.0, 1234.0], at_most(15), at_most(150, "p99"), note="all of them"),
        Figure("disk", "bytes", 10, 900.4, aims=(at_most(1100),)),
        Figure.of("a query", "ms", [0.12345]),
    ]
    lines = table([BenchResult("append", {}, figures)]).splitlines()
    assert lines[0].split() == ["bench", "figure", "unit", "n", "median", "p99", "max", "aim", "met"]
    assert lines[2].split("  ")[-1].strip() == "no"
    assert "median ≤ 15, p99 ≤ 150" in lines[2]
    assert lines[2].split()[6:8] == ["2", "1234"]
    assert lines[3].split() == ["append", "disk", "bytes", "10", "900", "median", "≤", "1100", "yes"]
    assert lines[4].split()[-1] == "0.123"
    assert lines[5:] == ["", "append, add in bursts: all of them"]
    columns = [line.index(cell) for line, cell in zip(lines[2:5], ("µs", "bytes", "ms"), strict=True)]
    assert len(set(columns)) == 1


def test_the_table_doubts_what_was_measured_beside_other_work() -> None:
    figures = [Figure.of("ingest / plain encode", "", [1.97], at_least(0.95)), Figure.of("a query", "ms", [1.0])]
    lines = table([BenchResult("ingest", {}, figures, others=1.25)]).splitlines()
    assert lines[2].endswith("yes?")
    assert not lines[3].endswith("?")
    assert lines[-1] == "ingest: ROUGH, other processes used 1.25 cores meanwhile"
    assert table([BenchResult("ingest", {}, figures, others=0.05)]).splitlines()[2].endswith("yes")


def test_a_result_can_be_written_as_json() -> None:
    figure = Figure.of("ingest", "texts/s", [80.0], at_least(0.95), note="real")
    written = json.loads(json.dumps(BenchResult("ingest", {"store": {}}, [figure]).as_dict()))
    assert written["configuration"] == {"store": {}}
    assert (written["others_cores"], written["quiet"]) == (0.0, True)
    assert written["figures"] == [
        {
            "name": "ingest",
            "unit": "texts/s",
            "samples": 1,
            "median": 80.0,
            "p99": 80.0,
            "max": 80.0,
            "aims": ["median ≥ 0.95"],
            "met": True,
            "note": "real",
        }
    ]


def test_the_machine_is_described() -> None:
    found = machine()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(found["packages"]) == set(PACKAGES)
    assert found["packages"]["numpy"]
    assert found["cpu"]
    assert found["kernel"]


def test_there_is_no_commit_outside_a_checkout(tmp_path: Path) -> None:
    assert commit(tmp_path) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_of_a_checkout_tells_whether_files_differ(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    found = commit(tmp_path)
    assert found is not None
    assert len(found["revision"]) == 40
    assert found["modified"] is False
    (tmp_path / "new").touch()
    assert commit(tmp_path) == {**found, "modified": True}


def test_synthetic_pages_are_the_same_for_the_same_seed_and_of_a_locomo_page_s_size() -> None:
    pages = list(islice(synthetic_pages("anna"), 500))
    assert pages == list(islice(synthetic_pages("anna"), 500))
    assert pages != list(islice(synthetic_pages("anna", seed=2), 500))
    assert {page["user_id"] for page in pages} == {"anna"}
    rows = [page for number in range(3) for page in row_of(number, 20)]
    texts = [page["user_input"] for page in (*pages, *rows)]
    assert len(set(texts)) == len(texts) == 560, "equal texts would be embedded once"
    assert 330 < sum(len(encode(list(page.values()))) for page in pages) / len(pages) < 430


def test_a_question_is_made_of_its_page_s_words() -> None:
    page = next(synthetic_pages())
    words = (page["user_input"] + " " + page["agent_response"]).replace(".", "").split()
    asked = question(page, 3)
    assert asked == question(page, 3)
    assert set(asked.removesuffix("?").split()) <= set(words)


@pytest.fixture
def locomo(tmp_path: Path) -> Path:
    turns = [
        {"speaker": "Caroline", "dia_id": "D1:1", "text": "Hello"},
        {"speaker": "Melanie", "dia_id": "D1:2", "text": "Hi"},
        {"speaker": "Caroline", "dia_id": "D1:3", "text": "Bye"},
    ]
    conversation = {
        "speaker_a": "Caroline",
        "speaker_b": "Melanie",
        "session_1": turns,
        "session_1_date_time": "1:56 pm on 8 May, 2023",
    }
    path = tmp_path / "locomo.json"
    path.write_text(json.dumps([{"sample_id": "conv-1", "conversation": conversation, "qa": []}]), "utf-8")
    return path


def test_pages_of_a_data_set_are_arguments_of_add(locomo: Path) -> None:
    first, second = dataset_pages(locomo)
    assert first["user_id"] == "conv-1"
    assert (first["user_input"], first["agent_response"]) == ("Hello", "Hi")
    assert first["timestamp"] == "2023-05-08 13:56:00"
    assert (second["user_input"], second["agent_response"]) == ("Bye", "")


def test_a_data_set_s_pages_come_again_and_again_and_none_with_the_text_of_another(locomo: Path) -> None:
    texts = [page["user_input"] for page in islice(Options(dataset=locomo).page_stream(), 5)]
    assert texts == ["Hello", "Bye", "Hello (2)", "Bye (2)", "Hello (3)"]


def test_sizes_are_full_quick_or_as_told() -> None:
    assert [Options().size(100, 10), Options(quick=True).size(100, 10)] == [100, 10]
    assert Options(quick=True, pages=3).size(100, 10) == 3
    assert [Options().times(7, 2), Options(quick=True, pages=3).times(7, 2)] == [7, 2]


def test_a_store_s_folder_is_removed_at_the_end(tmp_path: Path) -> None:
    with Options(folder=tmp_path).store() as folder:
        assert folder.parent.parent == tmp_path
        folder.mkdir()
        (folder / "file").touch()
    assert not any(tmp_path.iterdir())


def test_a_family_is_a_process_with_its_descendants() -> None:
    # The kernel tells processor time in hundredths of a second.
    busy = "import time\nwhile time.process_time() < 0.05: pass\nprint(1, flush=True)\ninput()"
    command = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # the grandchild is there
        members = family(child.pid)
        assert members[0] == child.pid
        assert len(members) == 2
        assert set(members) < set(family(os.getpid()))
        assert pss_bytes(child.pid) > 1 << 20
        assert cpu_seconds(tuple(members)) > 0
        child.communicate(b"\n")
    assert family(child.pid) == [child.pid]
    assert (pss_bytes(child.pid), cpu_seconds((child.pid,))) == (0, 0)


@pytest.mark.parametrize(("everyone", "ours", "others"), [(6.0, 2.0, 2.0), (2.0, 2.0, 0.0), (2.0, 2.02, 0.0)])
def test_the_cores_of_others_are_the_machine_s_less_ours(
    monkeypatch: pytest.MonkeyPatch, everyone: float, ours: float, others: float
) -> None:
    readings = {"_busy_seconds": [100.0, 100.0 + everyone], "_own_seconds": [10.0, 10.0 + ours]}
    for name, values in readings.items():
        monkeypatch.setattr(processes, name, iter(values).__next__)
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=iter([50.0, 52.0]).__next__))
    assert CpuShare().others() == others


def test_work_of_children_that_have_ended_is_ours() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    ours, everyone = processes._own_seconds(), processes._busy_seconds()
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert processes._own_seconds() - ours > 0.2  # counted in ticks, and rounded
    assert processes._busy_seconds() > everyone


def test_disk_space_is_that_of_blocks_and_of_lengths(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one").write_bytes(b"x" * 5000)
    sparse = tmp_path / "sparse"
    sparse.touch()
    os.truncate(sparse, 1 << 20)
    blocks, lengths = disk_bytes(tmp_path)
    assert lengths == 5000 + (1 << 20)
    assert 5000 <= blocks < 1 << 20


def missed() -> BenchResult:
    return BenchResult("retrieve", {}, [Figure.of("a search", "ms", [3.0], at_most(2))])


def test_a_missed_aim_fails_the_process_only_where_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "_bench", lambda _name: lambda _options: missed())
    assert harness.main(["retrieve"]) == 0
    assert harness.main(["retrieve", "--check"]) == 1
    assert capsys.readouterr().out.count("a search") == 2


def test_all_means_every_bench_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def bench(name: str) -> object:
        asked.append(name)
        return lambda _options: BenchResult(name, {}, [])

    monkeypatch.setattr(harness, "_bench", bench)
    assert harness.main(["all", "append"]) == 0
    assert harness.main(["append", "append"]) == 0
    assert asked == [*harness.BENCHES, "append"]
    capsys.readouterr()


@pytest.mark.parametrize(
    "wrong",
    [
        ["nothing"],
        [],
        ["append", "--pages", "0"],
        ["append", "--backend", "other"],
        ["append", "--latency-ms", "soon"],
        ["append", "--plot", "cliff.svg"],
        ["cliff", "--plot", "cliff.gif"],
    ],
)
def test_wrong_arguments_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        harness.main(wrong)
    assert refused.value.code == 2
    assert "usage: python -m perf" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("embedding.backned=fake", "nearest known one is 'embedding.backend'"),
        ("embedding.threads=many", "embedding.threads must be of type int, found 'many'"),
        ("embedding.threads=-1", "embedding.threads"),
        ("embedding", "embedding"),
    ],
)
def test_a_setting_that_is_none_is_refused(wrong: str, told: str) -> None:
    with pytest.raises(SystemExit, match=f"--set: .*{told}"):
        harness.main(["append", "--set", wrong])


def test_settings_of_the_command_line_go_over_a_bench_s_own(tmp_path: Path) -> None:
    given = read_settings(["embedding.fake_dimension=16", "store.durability=power", "runtime__socket=false"])
    assert given == {"embedding__fake_dimension": 16, "store__durability": "power", "runtime__socket": False}
    options = Options(settings=given)
    with options.open(tmp_path / "store", workers=False, embedding__backend="fake", store__durability="process") as it:
        settings = it._engine.config
    assert (settings.embedding.backend, settings.embedding.fake_dimension) == ("fake", 16)
    assert (settings.store.durability, settings.runtime.socket) == ("power", False)
    assert options.checked({"embedding__backend": "fake"}) == settings.as_dict()
    assert nested(given)["embedding"] == {"fake_dimension": 16}


def test_what_the_command_line_says_reaches_the_benches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Options] = []

    def bench(_name: str) -> object:
        def run(options: Options) -> BenchResult:
            asked.append(options)
            return missed()

        return run

    monkeypatch.setattr(harness, "_bench", bench)
    given = ["--quick", "--latency-ms", "20", "--set", "embedding.threads=1", "--set", "store.durability=power"]
    assert harness.main(["beside", *given]) == 0
    (options,) = asked
    assert (options.quick, options.latency_s) == (True, 0.02)
    assert options.settings == {"embedding__threads": 1, "store__durability": "power"}
    assert "s of processor time" in capsys.readouterr().err


def test_a_crowd_s_users_differ_in_size_and_their_conversations_are_mixed() -> None:
    pages = list(islice(scale.crowd_pages(50), 5000))
    assert pages == list(islice(scale.crowd_pages(50), 5000))
    sizes = sorted(Counter(page["user_id"] for page in pages).values())
    assert 40 <= len(sizes) <= 50
    assert sizes[-1] > 4 * sizes[len(sizes) // 2]
    talks = [page["metadata"]["session"] for page in pages]
    assert sum(before == after for before, after in pairwise(talks)) == 0
    owners = {(page["metadata"]["session"], page["user_id"]) for page in pages}
    assert len(owners) == len(set(talks))


@given(st.lists(st.integers(-9, 9), min_size=3, max_size=30), st.data())
def test_recall_counts_what_is_among_the_best(numbers: list[int], data: st.DataObject) -> None:
    exact = np.array(numbers, np.float32)
    found = data.draw(st.lists(st.integers(0, len(numbers) - 1), min_size=1, max_size=len(numbers), unique=True))
    best = np.argsort(-exact, kind="stable")[: len(found)]
    assert large.recall(best, exact) == 1.0
    least = sorted(numbers)[-len(found)]
    assert large.recall(np.array(found), exact) == sum(numbers[place] >= least for place in found) / len(found)


def test_a_bulk_load_that_ends_too_soon_is_told() -> None:
    with pytest.raises(RuntimeError, match="use more pages"):
        busy._figures([1.0], [], [1.0], "")


def test_a_page_is_in_mid_term_memory_when_its_batch_was_applied(tmp_path: Path) -> None:
    with MemoryPipeline.open(tmp_path, embedding__backend="fake", short_term__capacity=2) as pipeline:
        watch = busy._Applied(pipeline)
        begun = time.monotonic()
        pipeline.add(busy.USER, "one", "")
        applied = watch.wait(pipeline.add(busy.USER, "two", ""))
        assert begun < applied <= time.monotonic()
        scope = pipeline._engine.state.scopes[0]
        assert scope.mid_term.session_of(1) is not None


def test_every_bench_can_be_run() -> None:
    assert all(callable(harness._bench(name)) for name in harness.BENCHES)


@pytest.mark.slow
def test_a_child_answers_until_it_ends(tmp_path: Path) -> None:
    settings = {"store__segment_bytes": 1 << 20}
    with Child("owner", str(tmp_path / "store"), json.dumps(settings)) as owner:
        assert owner.ask("grow", pages=5) == 5
        configuration = owner.ask("configuration")
        assert (configuration["embedding"]["backend"], configuration["store"]["segment_bytes"]) == ("fake", 1 << 20)
        with pytest.raises(RuntimeError, match="'nothing' ended with code 1"):
            owner.ask("nothing")


@pytest.mark.slow
def test_a_small_run_measures_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    stores, report = tmp_path / "stores", tmp_path / "report.json"
    stores.mkdir()
    options = ["--quick", "--backend", "fake", "--pages", "60", "--dir", str(stores), "--json", str(report)]
    command = [sys.executable, "-m", "perf", "append", "recover", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text("utf-8"))
    assert set(found) == {"commit", "machine", "time", "arguments", "benches"}
    assert found["arguments"]["pages"] == 60
    names = {bench: [figure["name"] for figure in result["figures"]] for bench, result in found["benches"].items()}
    assert names == {
        "append": [
            "add in bursts of 20",
            "add after pauses of 2 ms",
            "bare write with the same pauses",
            "paused add / bare write",
            "adds 11–15 / adds 1–5 of fresh users",
        ],
        "recover": ["SIGKILL to the first add", "SIGKILL to the first retrieve", "memory for a page"],
    }
    assert found["benches"]["append"]["configuration"]["embedding"]["backend"] == "fake"
    assert all(name in done.stdout for bench in names.values() for name in bench)
    assert not any(stores.iterdir())


@pytest.mark.slow
def test_small_stores_of_many_users_and_of_one_are_measured(tmp_path: Path) -> None:
    options = Options(quick=True, pages=300, folder=tmp_path)
    crowd, one = scale.run(options), large.run(options)
    assert [figure.name.partition(" at ")[0] for figure in crowd.figures] == [
        "ingest of many users' pages",
        "retrieve",
        "a query to the embedder and back",
        "retrieve",
        "memory for a page, all told",
        "memory for one more page",
        "disk for a page, all told",
    ]
    assert one.figures[-1].name == "recall@10 of the vector search"
    assert one.figures[-1].median > 0.9
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_searches_and_batches_are_measured_beside_a_bulk_load(tmp_path: Path) -> None:
    result = busy.run(Options(quick=True, pages=2500, backend="fake", folder=tmp_path))
    assert [figure.unit for figure in result.figures] == ["ms", "ms", "", "s", "s"]
    assert all(figure.median > 0 for figure in result.figures)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.model
def test_a_small_ingestion_tells_what_a_page_takes(tmp_path: Path) -> None:
    result = ingest.run(Options(quick=True, pages=50, backend="fake", folder=tmp_path))
    figures = {figure.name: figure for figure in result.figures}
    texts, tasks = figures["embedded texts for a page"], figures["extractive tasks, processor time for a page"]
    assert 1.0 < texts.median < 1.6
    assert texts.note.endswith("texts of 50 pages: pages, summaries and facts")
    assert (str(texts.aims[0]), str(tasks.aims[0])) == ("median ≤ 1.3", "median ≤ 0.2")
    assert 0.0 < tasks.median < 5.0
    assert figures["the LLM pool's processor time for a page"].median >= 0.0
    assert figures["disk for a page, all told"].median > 0
    assert figures["ingest / the backend's own raw rate"].median == figures["ingest / plain fp32 encode"].median > 0
    assert {series.plot for series in result.series} == {"pages by stage", "throughput by stage", "backlog by stage"}
    assert not any(tmp_path.iterdir())


def test_tasks_that_can_not_be_done_are_told() -> None:
    page = ["I have a beagle named Rex.", "Lovely!", "2026-03-01 10:00:00"]
    promotion = "promotion", {"profile": "", "pages": [page]}
    assert tasks.task_seconds([promotion, promotion]) > 0
    with pytest.raises(RuntimeError, match="of 2 units 1 could not be done"):
        tasks.task_seconds([promotion, ("batch", {"pages": [page]})])


class Way:
    """Stands in for a process with a model."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked: list[tuple[int, int]] = []

    def ask(self, what: str, *, texts: int, words: int) -> float:
        assert what == "encode"
        self.asked.append((texts, words))
        return self.seconds


def test_ways_of_embedding_are_measured_in_turn_and_compared_with_ours() -> None:
    ways = {embed.OURS: Way(0.01), "another": Way(0.04)}
    figures = embed._figures(ways, " somewhere", 2)  # type: ignore[arg-type]
    assert {figure.name: figure.median for figure in figures} == {
        f"question somewhere, {embed.OURS}": 10.0,
        "question somewhere, another": 40.0,
        "question somewhere, ours / another": 0.25,
        f"batch somewhere, {embed.OURS}": 10.0,
        "batch somewhere, another": 40.0,
        "batch somewhere, ours / another": 0.25,
    }
    assert all(way.asked == [embed.SHAPES["question"]] * 2 + [embed.SHAPES["batch"]] * 2 for way in ways.values())


def test_busy_processes_end_with_their_block() -> None:
    with embed._busy():
        assert len(children()) >= len(os.sched_getaffinity(0))
    assert not children()


@pytest.mark.slow
@pytest.mark.model
def test_a_process_embeds_without_packed_weights() -> None:
    with Child("embedding", "plain") as child:
        assert child.ask("encode", texts=2, words=5) > 0
