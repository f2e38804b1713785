"""Answers to chats: each is an answer, or one text that tells why there is none, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mos_pipeline.stages.caller import Caller, DownError, UnansweredError
from mos_pipeline.stages.completion import Chat
from mos_pipeline.stages.endpoint import BrokenOffError, RefusedError

__all__ = ["Answering"]

ANSWER = "answer"  # what the calls are metered as
MENDS = {
    400: "is llm.model right, and the prompt not too long for it (response.prompt_tokens)?",
    401: "check llm.api_key, or the environment's OPENAI_API_KEY",
    403: "check llm.api_key, and what it may be used for",
    404: "check llm.base_url (most end in /v1) and llm.model",
    413: "make response.prompt_tokens less",
}
OTHER_MEND = "check llm.base_url and llm.model"


class Answering:
    """Answers the payloads of units of kind ``chat``; see ``stages/tasks.py``."""

    def __init__(self, model: str, caller: Caller) -> None:
        self._model = model
        self._caller = caller

    async def answer(self, payload: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
        """Return the unit's result; ``tell`` is given the pieces."""
        chat = Chat(payload["messages"], payload["temperature"], payload["max_tokens"], payload["stream"])
        try:
            completion = await self._caller.chat(ANSWER, chat, tell, payload["until"])
        except UnansweredError as error:
            return self._none(f"{error}; ask again later, or allow it more (response.deadline_s)", late=True)
        except DownError as error:
            return self._none(f"{error}; ask again when it is back (stats().endpoint)")
        except RefusedError as error:
            return self._none(f"{error}; {MENDS.get(error.status or 0, OTHER_MEND)}")
        except BrokenOffError as error:
            return self._none(f"{error}, when a part of it had been handed out; ask again")
        return {"text": completion.text}

    def _none(self, why: str, *, late: bool = False) -> dict[str, Any]:
        return {"error": f"no answer by {self._model}: {why}", "late": late}
