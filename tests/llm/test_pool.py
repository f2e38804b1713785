"""Workers with calls in flight, in processes of their own: they take new work, say that they live, and may die."""

from __future__ import annotations

import os
import signal
from typing import Any

from mos_pipeline.config import Llm, LongTerm
from mos_pipeline.messages import encode
from mos_pipeline.runtime.channel import STOP
from mos_pipeline.runtime.start import spawn_context, unlink_semaphores
from mos_pipeline.runtime.supervisor import Role
from mos_pipeline.runtime.worker import _work
from mos_pipeline.stages.calls import CallStage
from mos_pipeline.testing import FakeOpenAI, replies
from tests.llm.bench import KEY, Bench, batch
from tests.runtime.office import Office
from tests.runtime.stages import Toy


def caller(fake: FakeOpenAI, *, stateful: bool = False, workers: int = 1, **settings: Any) -> Role:
    llm = Llm(provider="openai", base_url=fake.base_url, api_key=KEY, **settings)
    return Role("toy", CallStage, (llm, LongTerm(), 0.1), workers, stateful=stateful, units=llm.max_in_flight)


def test_new_work_is_taken_while_calls_are_in_flight(fake: FakeOpenAI) -> None:
    fake.script.add(replies.hang(), times=2)
    with Office(caller(fake)) as office:
        first = office.submit("batch", batch())
        fake.wait_for_calls(2)
        second = office.submit("batch", batch())
        assert office.outcome(second).result["owed"] == []
        assert first not in office.outcomes or not office.outcomes[first]


def test_one_worker_does_not_keep_what_another_could_begin(fake: FakeOpenAI) -> None:
    fake.script.add(replies.hang(), times=None)
    with Office(caller(fake, max_in_flight=2, workers=2)) as office:
        for _ in range(4):
            office.submit("batch", batch())
        fake.wait_for_calls(4)  # two of either worker, though one was ready first


def test_a_worker_that_waits_for_a_slow_endpoint_is_not_silent(fake: FakeOpenAI) -> None:
    fake.script.latency_s = 1.5
    with Office(caller(fake), work_timeout_s=0.5) as office:
        assert office.ask("batch", batch()).result["owed"] == []
        assert office.supervisor.state("toy").restarts == 0
    assert fake.calls == 2


def test_a_worker_that_hangs_itself_is_killed(fake: FakeOpenAI) -> None:
    fake.script.latency_s = 1.0
    with Office(caller(fake), work_timeout_s=0.5) as office:
        office.wait("ready")
        unit = office.submit("batch", batch())
        fake.wait_for_calls(2)
        office.signal(signal.SIGSTOP)
        assert office.outcome(unit).result["owed"] == []
        assert office.supervisor.state("toy").restarts >= 1


def test_work_of_a_worker_killed_in_mid_call_is_done_once_by_the_next(fake: FakeOpenAI) -> None:
    fake.script.add(replies.hang(), times=8)
    with Office(caller(fake)) as office:
        units = [office.submit("batch", batch()) for _ in range(4)]
        fake.wait_for_calls(8)
        office.signal(signal.SIGKILL)
        assert all(office.outcome(unit).result["owed"] == [] for unit in units)
        assert office.supervisor.state("toy").restarts == 1
    assert fake.calls == 16


def test_the_units_in_work_are_blamed_and_no_others(fake: FakeOpenAI) -> None:
    fake.script.add(replies.hang(), times=None)
    with Office(caller(fake, max_in_flight=2), max_attempts=1) as office:
        units = [office.submit("batch", batch()) for _ in range(4)]
        fake.wait_for_calls(2)
        fake.script.clear()
        office.signal(signal.SIGKILL)
        fates = [office.outcome(unit).fate for unit in units]
    assert fates == ["killed", "killed", "done", "done"]


def test_told_to_stop_it_finishes_what_it_has(fake: FakeOpenAI) -> None:
    fake.script.latency_s = 0.5
    with Office(caller(fake, stateful=True)) as office:
        units = [office.submit("batch", batch()) for _ in range(8)]
        fake.wait_for_calls(1)
        more = office.submit("batch", batch())  # never in its hands
        office.close()
        assert not office.outcomes[more]
        assert all(office.outcomes[unit][0].fate == "done" for unit in units)


def test_meters_of_workers_that_died_count(fake: FakeOpenAI) -> None:
    with Office(caller(fake)) as office:
        office.ask("batch", batch())
        office.signal(signal.SIGKILL)
        office.ask("batch", batch())
        tallies = office.supervisor.state("toy").meter.tallies
    assert {kind: tally.calls for kind, tally in tallies.items()} == {"continuity": 2, "topics": 2}
    assert sum(tally.tokens_out for tally in tallies.values()) == fake.tokens_out


def test_the_key_is_in_no_command_line(fake: FakeOpenAI) -> None:
    with Office(caller(fake)) as office:
        office.wait("ready")
        (pid,) = office.pids()
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            assert KEY.encode() not in file.read()
        assert office.supervisor.state("toy").info == {"provider": "openai", "model": "gpt-4o-mini"}
        assert os.getpid() != pid


class Watching(Toy):
    """A stage that notes what it shall watch."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = list[int | None]()

    def watch(self, descriptor: int | None) -> None:
        self.watched.append(descriptor)


def test_after_a_stop_the_queue_is_watched_no_more() -> None:
    stage, queue = Watching(), spawn_context.Queue()
    unit, late = (encode([number, "echo", "payload"]) for number in (1, 2))
    with Bench(None) as bench:
        for message in (unit, STOP, late):
            queue.put(message)
        _work(stage, queue, bench)  # else it would wake for what it doesn't take, again and again
    assert bench.results == {1: "payload"}
    assert stage.watched == [None]
    queue.get()
    queue.close()
    queue.join_thread()
    unlink_semaphores(queue)
