"""A fake endpoint in a process of its own, which tells what it was asked: ``python -m perf.endpoint LATENCY_S ANSWER``.

So it takes no time from the process that is measured.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from mos_pipeline.testing import FakeOpenAI
from mos_pipeline.testing.replies import content
from perf.children import Child, serve

__all__ = ["Endpoint", "Told", "endpoint", "share_of_ideal"]

KEEP = 200_000


class Told(NamedTuple):
    """What an endpoint was asked since it began, or since the last time that it was told to begin anew.

    Attributes:
        tokens_in, tokens_out: of prompts and answers, a quarter of their characters.
        tasks: calls by the task that they ask for.
        arrivals: when each call came, in monotonic seconds, ascending.
        most_in_flight: the most calls that were in flight at once, since the endpoint began.
    """

    calls: int
    tokens_in: int
    tokens_out: int
    tasks: dict[str, int]
    arrivals: list[float]
    most_in_flight: int


class Endpoint(NamedTuple):
    """The parent's end of it."""

    child: Child
    base_url: str

    def told(self) -> Told:
        """Return what it was asked, and have it begin anew."""
        return Told(*self.child.ask("told"))


@contextmanager
def endpoint(latency_s: float, answer: str = "") -> Iterator[Endpoint]:
    """Provide an endpoint on loopback that takes so long for every answer: this one, or a sensible one where empty."""
    with Child("endpoint", str(latency_s), answer) as child:
        yield Endpoint(child, child.ask("address"))


def share_of_ideal(arrivals: list[float], in_flight: int, latency_s: float) -> float:
    """Return the calls a second, over those of an endpoint that always has ``in_flight`` calls in work.

    The first and the last two rounds of calls, while there is not enough work yet or any more, are left out. Calls come
    in waves, so whole rounds are counted: from one call to another that came a multiple of ``in_flight`` later.

    Raises:
        RuntimeError: there were too few calls to tell.
    """
    edge = 2 * in_flight
    rounds = (len(arrivals) - 2 * edge - 1) // in_flight
    if rounds < 1:
        raise RuntimeError(
            f"{len(arrivals)} calls are too few for {in_flight} in flight; more than {5 * in_flight} tell"
        )
    return rounds * latency_s / (arrivals[edge + rounds * in_flight] - arrivals[edge])


def _serve(latency_s: float, answer: str) -> None:
    with FakeOpenAI(keep=KEEP) as fake:
        fake.script.latency_s = latency_s
        if answer:
            fake.script.add(content(answer), times=None)
        before = [0, 0, 0]

        def told() -> list[Any]:
            counts = [fake.calls, fake.tokens_in, fake.tokens_out]
            asked = list(fake.requests)
            fake.requests.clear()
            new = [now - then for now, then in zip(counts, before, strict=True)]
            before[:] = counts
            tasks = Counter(request.task for request in asked)
            return [*new, dict(tasks), [request.at for request in asked], fake.most_in_flight]

        serve({"address": lambda: fake.base_url, "told": told})


if __name__ == "__main__":
    _serve(float(sys.argv[1]), sys.argv[2])
