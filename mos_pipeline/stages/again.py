"""Tasks that are owed, asked of the model once more: where it does not answer, nothing stands in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any

from mos_pipeline.stages.asking import Asking
from mos_pipeline.stages.caller import UnansweredError
from mos_pipeline.stages.tasks import BatchAsked, Knowledge, read_promotion

__all__ = ["AGAIN", "answer_again"]

AGAIN = ("batch again", "promotion again")


async def answer_again(asking: Asking, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a unit of one of the kinds ``AGAIN``; see ``stages/tasks.py``."""
    wanted = {task: call for task, call in _calls(asking, kind, payload).items() if task in payload["tasks"]}
    answers = await asyncio.gather(*(call() for call in wanted.values()), return_exceptions=True)
    result, unusable = dict[str, Any](), list[str]()
    for task, answer in zip(wanted, answers, strict=True):
        if not isinstance(answer, BaseException):
            result[task] = answer
        elif not isinstance(answer, UnansweredError):
            raise answer
        elif answer.reached:
            unusable.append(task)
    return {**result, "unusable": unusable}


def _calls(asking: Asking, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Return a function for each task, which asks for it."""
    if kind == "batch again":
        batch, previous, homeless = BatchAsked.read(payload)
        return {
            "continuity": lambda: _plain(asking.continuity(batch, previous)),
            "topics": lambda: _plain(asking.topics(homeless)),
        }
    profile, pages = read_promotion(payload)
    return {"profile": lambda: asking.profile(profile, pages), "knowledge": lambda: _plain(asking.knowledge(pages))}


async def _plain(asked: Coroutine[Any, Any, Any]) -> Any:
    answer = await asked
    if isinstance(answer, list):
        return list(map(asdict, answer))
    if isinstance(answer, Knowledge):
        return {whose: [fact._asdict() for fact in facts] for whose, facts in answer._asdict().items()}
    return asdict(answer)
