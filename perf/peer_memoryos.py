"""What the original MemoryOS takes: a program that runs with its package, and imports nothing of ours.

It reads one JSON object from standard input::

    users       of each, whose pages are added to a new object:
        pages       [[user_input, agent_response], …]
        folder      where its files go
        base_url    the endpoint
    questions   asked of the last user at the end
    pause_s     seconds before each add
    model       the embedding model's folder
    capacity    of short-term memory, pages

and prints ``{"seconds": [[what each add took, …], …], "asked": [what each question took, …]}`` as the last line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

MODEL = "all-MiniLM-L6-v2"  # what it asks for


def main() -> None:
    """Add all pages, and ask."""
    task = json.load(sys.stdin)
    told: dict[str, list[Any]] = {"seconds": [], "asked": []}
    with redirect_stdout(sys.stderr):  # it prints what it does
        from memoryos import Memoryos, utils  # type: ignore[import-not-found]
        from sentence_transformers import SentenceTransformer

        utils._model_cache[MODEL] = SentenceTransformer(task["model"])  # so that no add has to load it
        for number, user in enumerate(task["users"]):
            memory = Memoryos(
                user_id=f"user{number}",
                openai_api_key="none",
                data_storage_path=user["folder"],
                openai_base_url=user["base_url"],
                short_term_capacity=task["capacity"],
            )
            told["seconds"].append(
                [_timed(memory.add_memory, *page, pause_s=task["pause_s"]) for page in user["pages"]]
            )
        for question in task.get("questions", ()):
            told["asked"].append(_timed(memory.retriever.retrieve_context, question, memory.user_id))
    print(json.dumps(told))


def _timed(call: Callable[..., object], *arguments: str, pause_s: float = 0.0) -> float:
    time.sleep(pause_s)
    begun = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
