"""A stage with an endpoint in this process, and everything it reports."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from mos_pipeline.config import Llm, LongTerm
from mos_pipeline.messages import decode, encode
from mos_pipeline.runtime.meter import Meter
from mos_pipeline.stages.calls import CallStage
from mos_pipeline.testing import FakeOpenAI

__all__ = ["KEY", "PATIENCE_S", "Bench", "batch", "chat", "promotion"]

KEY = "sk-this-is-a-secret"
PATIENCE_S = 60.0
SAID = (
    ("I adopted a beagle named Rex.", "Lovely! How old is Rex?"),
    ("Rex is three, and the beagle loves the harbour.", "A good age for a beagle."),
    ("My sister plays the violin in Ghent.", "Does she give concerts?"),
    ("The violin concert is on Friday.", "Enjoy the concert!"),
)


def batch(pages: Sequence[Sequence[str]] = SAID, previous: Any = None, homeless: Any = None) -> Any:
    """Return the payload of a unit of kind ``batch``."""
    rows = np.eye(len(pages), dtype=np.float16)
    message = {
        "pages": [[*page, "2024-05-01 10:00:00"] for page in pages],
        "vectors": rows.tobytes(),
        "dimension": len(pages),
        "previous": previous,
        "homeless": list(range(len(pages))) if homeless is None else homeless,
    }
    return decode(encode(message))


def promotion(pages: Sequence[Sequence[str]] = SAID, profile: str = "") -> Any:
    """Return the payload of a unit of kind ``promotion``."""
    return {"profile": profile, "pages": [[*page, "2024-05-01 10:00:00"] for page in pages]}


def chat(text: str = "Which pet do I have?", *, stream: bool = False, within_s: float = PATIENCE_S) -> Any:
    """Return the payload of a unit of kind ``chat``."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    limits = {"temperature": 0.7, "max_tokens": 50, "stream": stream, "until": time.monotonic() + within_s}
    return decode(encode({"messages": messages, **limits}))


class Bench:
    """Runs a stage; a Report, and a context that closes it. Settings are those of ``Llm``."""

    def __init__(self, fake: FakeOpenAI | None, **settings: Any) -> None:
        wanted = {"provider": "openai", "api_key": KEY, "processes": 1, "timeout_s": 5.0, "deadline_s": 20.0}
        if fake is not None:
            wanted["base_url"] = fake.base_url
        self.stage = CallStage(Llm(**{**wanted, **settings}), LongTerm(), 0.05)
        self.results: dict[int, Any] = {}
        self.failures: dict[int, str] = {}
        self.pieces: dict[int, list[str]] = {}
        self.order: list[int] = []
        self.begun: list[list[int]] = []
        self.meter = Meter()
        self.down: list[bool] = []
        self.info: dict[str, Any] = {}
        self._next = 1

    def started(self, unit_ids: Sequence[int]) -> None:
        self.begun.append(list(unit_ids))

    def piece(self, unit_id: int, piece: Any) -> None:
        assert unit_id not in self.results
        self.pieces.setdefault(unit_id, []).append(decode(encode(piece)))

    def done(self, unit_id: int, result: Any) -> None:
        assert unit_id not in self.results
        self.order.append(unit_id)
        self.results[unit_id] = decode(encode(result))

    def failed(self, unit_id: int, message: str) -> None:
        self.failures[unit_id] = message

    def metered(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        self.meter.add(decode(encode(told)))

    def endpoint(self, down_since: float | None) -> None:
        self.down.append(down_since is not None)

    def accept(self, payload: Any, kind: str = "") -> int:
        unit_id, self._next = self._next, self._next + 1
        known = {"vectors": "batch", "profile": "promotion", "messages": "chat"}
        self.stage.accept(unit_id, kind or next(known[name] for name in known if name in payload), payload)
        return unit_id

    def run(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.stage.pending:
            assert time.monotonic() < deadline, "the stage does not get done"
            self.stage.step(self)

    def ask(self, payload: Any) -> Any:
        """Return the result of a unit."""
        unit_id = self.accept(payload)
        self.run()
        assert not self.failures
        return self.results[unit_id]

    def __enter__(self) -> Bench:
        self.info = self.stage.prepare()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stage.close()
