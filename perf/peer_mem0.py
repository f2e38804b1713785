"""What mem0 takes, with local Qdrant: a program that runs with its packages, and imports nothing of ours.

It reads one JSON object from standard input::

    pages       [[user_input, agent_response], …], added as two messages each, as they are
    questions   searched for after that
    told        pages added then, of which a language model is asked what to remember
    folder      where its files go
    model       the embedding model's folder
    dimension   of its vectors
    base_url    the endpoint

and prints ``{"seconds": [what each add of pages took, …], "asked": [what each search took, …], "told": [what each add
took after that, …], "kept": memories of pages, "remembered": memories of what was told}`` as the last line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

USER, TOLD = "user", "told"


def main() -> None:
    """Add all pages, and ask."""
    task = json.load(sys.stdin)
    os.environ.update(MEM0_TELEMETRY="False", MEM0_DIR=task["folder"], OPENAI_API_KEY="none")
    with redirect_stdout(sys.stderr):
        from mem0 import Memory  # type: ignore[import-not-found]

        memory = Memory.from_config(_settings(task))
        seconds = [_timed(memory.add, _messages(*page), user_id=USER, infer=False) for page in task["pages"]]
        asked = [_timed(memory.search, question, filters={"user_id": USER}) for question in task["questions"]]
        told = [_timed(memory.add, _messages(*page), user_id=TOLD, infer=True) for page in task["told"]]
        kept, remembered = (
            len(memory.get_all(filters={"user_id": user}, top_k=2 * (len(seconds) + len(told)) + 1)["results"])
            for user in (USER, TOLD)
        )
    print(json.dumps({"seconds": seconds, "asked": asked, "told": told, "kept": kept, "remembered": remembered}))


def _settings(task: dict[str, Any]) -> dict[str, Any]:
    store = {"path": f"{task['folder']}/qdrant", "on_disk": True, "embedding_model_dims": task["dimension"]}
    model = {"model": "gpt-4o-mini", "openai_base_url": task["base_url"], "api_key": "none"}
    return {
        "vector_store": {"provider": "qdrant", "config": {**store, "collection_name": "perf"}},
        "embedder": {
            "provider": "huggingface",
            "config": {"model": task["model"], "embedding_dims": task["dimension"]},
        },
        "llm": {"provider": "openai", "config": model},
        "history_db_path": f"{task['folder']}/history.db",
    }


def _messages(user_input: str, agent_response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": user_input}, {"role": "assistant", "content": agent_response}]


def _timed(call: Callable[..., object], *arguments: Any, **named: Any) -> float:
    begun = time.perf_counter()
    call(*arguments, **named)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
