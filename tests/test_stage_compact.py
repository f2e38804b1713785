"""Compaction as the writer's stage does it: in slices, between other work."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mos_pipeline.messages import encode, pack_seqs
from mos_pipeline.stages.write import MAX_PAUSE_S, WriteStage
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.pins import Pin
from mos_pipeline.store.reading import PageFrame, PageReader
from mos_pipeline.store.segments import FrameAddress, SegmentReader
from mos_pipeline.store.verify import verify_store
from tests.store.common import SmallDisk, descriptors_closed, run_python
from tests.store.compacting import Compactable, all_bytes, page, secret, texts
from tests.test_stage_write import Reports

__all__ = ["descriptors_closed"]


class Ticks:
    """A clock by which every look at it takes so many seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Bench:
    """A store of three segments of 32 pages each, and the stage that writes to it."""

    def __init__(self, root: Path) -> None:
        made = Compactable(root)
        for number in range(3):
            if number:
                made.writer.begin_next()
            for _ in range(4):
                made.add(8)
        made.writer.close()
        self.folder: StoreFolder = made.folder
        self.clock, self.reports = Ticks(), Reports()
        self.stage = WriteStage(str(root), 1 << 20, 3, clock=self.clock)
        self._ids = itertools.count(1)

    def ask(self, kind: str, payload: Any) -> int:
        unit_id = next(self._ids)
        self.stage.accept(unit_id, kind, payload)
        return unit_id

    def compact(self, *forgotten: int, segments: tuple[int, ...] = (1, 2, 3)) -> int:
        wanted = {"segments": list(segments), "forgotten": pack_seqs(sorted(forgotten)), "superseded": None}
        return self.ask("compact", wanted)

    def step(self) -> None:
        self.stage.step(self.reports)

    def finish(self) -> int:
        """Step until nothing is pending, and return how many steps it took."""
        for steps in itertools.count():
            if not self.stage.pending:
                return steps
            self.step()
        raise AssertionError


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "store")
    yield made
    made.stage.close()


def test_compaction_and_then_a_sweep(bench: Bench) -> None:
    unit = bench.compact(0, 40)
    assert bench.stage.pending
    bench.finish()
    result = bench.reports.results[unit]
    assert result["removed"] == [1, 2, 3]
    assert sum(row[-1] for row in result["moved"]) == 96
    assert all(bench.folder.segment(number).exists() for number in (1, 2, 3))  # someone may read them still
    sweep = bench.ask("sweep", None)
    bench.finish()
    assert bench.reports.results[sweep] == {"removed": [1, 2, 3], "kept": []}
    bench.stage.close()
    assert sorted(texts(bench.folder.root)) == [seq for seq in range(96) if seq not in (0, 40)]


def test_other_work_goes_first_and_waits_for_no_more_than_a_slice(bench: Bench) -> None:
    bench.clock.step = 0.004
    compaction = bench.compact(0)
    done = list[int]()
    while bench.stage.pending:
        unit = bench.ask("frame", [int(FrameKind.EVENTS), encode([len(done)]), 95])
        bench.step()
        assert unit in bench.reports.results
        done.append(unit)
        if compaction in bench.reports.results:
            break
    assert len(done) > 10
    assert bench.reports.refused == {}
    assert bench.reports.begun[0] == [done[0], compaction]
    assert verify_store(bench.folder.root).frames["events"] == len(done)


def test_slices_of_one_pass_are_announced_once(bench: Bench) -> None:
    bench.clock.step = 0.004
    first, second = bench.compact(0), bench.compact(1, segments=())
    assert bench.finish() > 10
    assert bench.reports.begun == [[first], [second]]


def test_frames_written_meanwhile_lie_behind(bench: Bench) -> None:
    bench.clock.step = 0.004
    bench.compact(0)
    bench.step()
    bench.step()
    bench.ask("frame", [int(FrameKind.STATE), encode(["late"]), 95])
    bench.finish()
    manifest = Manifest.load(bench.folder)
    assert (manifest.segments, manifest.generation) == ((5, 4), 1)


@pytest.mark.parametrize(
    "payload", [None, {"segments": [77], "forgotten": pack_seqs([]), "superseded": None}, {"segments": [1]}]
)
def test_senseless_request_is_refused_and_the_rest_is_done(bench: Bench, payload: Any) -> None:
    bad, good = bench.ask("compact", payload), bench.compact(0)
    bench.finish()
    assert list(bench.reports.refused) == [bad]
    assert list(bench.reports.results) == [good]


def test_passes_are_given_up_on_request(bench: Bench) -> None:
    bench.clock.step = 0.004
    first, second = bench.compact(0), bench.compact(1)
    bench.step()
    bench.step()
    stop = bench.ask("abandon", None)
    bench.step()
    assert not bench.stage.pending
    assert sorted(bench.reports.refused) == [first, second]
    assert bench.reports.results == {stop: None}
    assert Manifest.load(bench.folder).drafts == ()
    bench.stage.close()
    assert sorted(texts(bench.folder.root)) == list(range(96))


def test_closing_in_the_midst_leaves_no_drafts(bench: Bench) -> None:
    bench.clock.step = 0.004
    bench.compact(0)
    for _ in range(5):
        bench.step()
    assert Manifest.load(bench.folder).drafts
    bench.stage.close()
    assert len(list(bench.folder.segments.iterdir())) == len(Manifest.load(bench.folder).segments)


def test_disk_full_of_drafts_fails_the_pass_and_nothing_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stage.prepare()
    disk = SmallDisk(monkeypatch)
    disk.free = 1200
    unit = bench.compact(0)
    bench.step()
    assert "no room" in bench.reports.refused[unit]
    assert not bench.stage.pending
    disk.free = float("inf")
    again = bench.compact(0)
    bench.finish()
    assert bench.reports.results[again]["removed"] == [1, 2, 3]


def test_replacement_that_fails_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = bench.compact(0)
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if Manifest.load(bench.folder).drafts:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, target)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", replace)
        bench.step()
    assert bench.stage.pending
    assert bench.reports.refused == {}
    bench.clock.now += MAX_PAUSE_S
    bench.finish()
    assert bench.reports.results[unit]["removed"] == [1, 2, 3]


def test_segments_that_a_reader_pins_are_kept(bench: Bench) -> None:
    with Pin.take(bench.folder):
        bench.compact(0, segments=(1,))
        bench.finish()
        first = bench.ask("sweep", None)
        bench.finish()
    second = bench.ask("sweep", None)
    bench.finish()
    assert bench.reports.results[first] == {"removed": [], "kept": [1]}
    assert bench.reports.results[second] == {"removed": [1], "kept": []}


COMPACT = """
import sys
from mos_pipeline.messages import pack_seqs
from mos_pipeline.stages.write import WriteStage
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from pathlib import Path

class Report:
    def started(self, unit_ids): pass
    def failed(self, unit_id, message): raise SystemExit(message)
    def done(self, unit_id, result): pass

folder, forgotten = StoreFolder(Path(sys.argv[1])), list(map(int, sys.argv[2].split(",")))
stage, report = WriteStage(str(folder.root), 4000, 3), Report()
stage.prepare()
print("ready", flush=True)
while True:
    segments = list(Manifest.load(folder).segments)
    stage.accept(1, "compact", {"segments": segments, "forgotten": pack_seqs(forgotten), "superseded": None})
    while stage.pending:
        stage.step(report)
    stage.accept(2, "sweep", None)
    stage.step(report)
"""


def kill_after(child: subprocess.Popen[str], seconds: float) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    child.stdout.close()


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_a_whole_store(tmp_path: Path) -> None:
    chance = random.Random(20)
    store = Compactable(tmp_path / "store", 4000)
    for _ in range(40):
        store.add(8)
    gone = sorted(chance.sample(range(320), 60))
    store.forget(gone)
    store.writer.close()
    left = {seq: secret(seq) for seq in range(320) if seq not in gone}
    generations, longest = set[int](), 0.15
    for _ in range(24):
        child = run_python(COMPACT, store.folder.root, ",".join(map(str, gone)))
        kill_after(child, chance.uniform(0, longest))
        report = verify_store(store.folder.root)
        assert report.problems == []
        assert (report.pages, report.forgotten) == (260, 60)
        assert texts(store.folder.root) == left
        manifest = Manifest.load(store.folder)
        generations.add(manifest.generation)
        longest *= 1 if len(generations) > 1 else 1.2  # a busy machine has not begun by then
        named = {f"{number:08d}.segment" for number in manifest.segments}
        assert {path.name for path in store.folder.segments.iterdir()} == named
    assert len(generations) > 1
    assert list(store.folder.aside.iterdir()) == []


deeds = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 9)),
        st.tuples(st.just("forget"), st.integers(0, 1 << 16)),
        st.tuples(st.just("compact"), st.integers(0, 1 << 12)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=25,
)


class Model:
    """What a store must hold, beside the store; a reader follows it as the main process does."""

    def __init__(self, root: Path) -> None:
        self.store = Compactable(root, 1500)
        self.pages, self.forgotten = set[int](), set[int]()
        self.segments = SegmentReader(self.store.folder)
        self.reader = PageReader(self.segments, 4000)

    def add(self, count: int) -> None:
        before = self.store.writer.end
        seqs = self.store.add(count)
        self.pages.update(seqs)
        at = before if before.segment and self.holds(before) else FrameAddress(self.store.segments[-1], 0)
        self.reader.persisted([PageFrame(seqs[0], count, at)])

    def holds(self, address: FrameAddress) -> bool:
        return self.segments.size(address.segment) > address.offset

    def forget(self, choice: int) -> None:
        chosen = {seq for seq in self.pages if not (seq * 7919 + choice) % 5}
        if chosen:
            self.store.forget(chosen)
            self.forgotten |= chosen
            self.pages -= chosen

    def compact(self, choice: int) -> None:
        state = self.store.put(FrameKind.STATE, encode(["state"])) if choice & 1 else None
        named = [seg for at, seg in enumerate(self.store.segments) if not choice >> at & 1 or choice & 2]
        result = self.store.compact(self.forgotten, named, state)
        self.reader.moved(result["moved"])
        self.segments.drop(result["removed"])
        self.store.sweep()

    def reopen(self, _: int) -> None:
        self.store.writer.close()
        assert texts(self.store.folder.root) == {seq: secret(seq) for seq in self.pages}
        self.store.writer = type(self.store.writer)(self.store.folder, 1500, 3)

    def check(self) -> None:
        assert self.reader.read_many(sorted(self.pages)) == [page(seq) for seq in sorted(self.pages)]
        report = verify_store(self.store.folder.root)
        assert (report.problems, report.pages) == ([], len(self.pages))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deeds)
def test_store_holds_what_a_model_of_it_holds(tmp_path_factory: pytest.TempPathFactory, deeds: list[Any]) -> None:
    model = Model(tmp_path_factory.mktemp("model") / "store")
    for deed, argument in deeds:
        getattr(model, deed)(argument)
    model.check()
    model.compact(3)  # everything
    model.check()
    assert not [seq for seq in model.forgotten if secret(seq).encode() in all_bytes(model.store.folder.root)]
    model.reopen(0)
    model.segments.close()
    model.store.writer.close()
