"""What an add costs in the original MemoryOS: a program that runs with its package, and imports nothing of ours.

It reads one JSON object from standard input::

    users       [[[user_input, agent_response], …], …], each user's pages, which are added to a new object
    pause_s     seconds before each add
    folder      where its files go
    model       the embedding model's folder
    base_url    the endpoint
    capacity    of short-term memory, pages

and prints ``{"seconds": [[what each add took, …], …]}`` as the last line.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import redirect_stdout
from typing import Any

MODEL = "all-MiniLM-L6-v2"  # what it asks for


def main() -> None:
    """Add all pages."""
    task = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):  # it prints what it does
        from memoryos import Memoryos, utils  # type: ignore[import-not-found]
        from sentence_transformers import SentenceTransformer

        utils._model_cache[MODEL] = SentenceTransformer(task["model"])  # so that no add has to load it
        told = [_added(Memoryos, task, f"user{number}", pages) for number, pages in enumerate(task["users"])]
    print(json.dumps({"seconds": told}))


def _added(library: Any, task: dict[str, Any], user: str, pages: list[list[str]]) -> list[float]:
    memory = library(
        user_id=user,
        openai_api_key="none",
        data_storage_path=task["folder"],
        openai_base_url=task["base_url"],
        short_term_capacity=task["capacity"],
    )
    seconds = []
    for user_input, agent_response in pages:
        time.sleep(task["pause_s"])
        begun = time.perf_counter()
        memory.add_memory(user_input, agent_response)
        seconds.append(time.perf_counter() - begun)
    return seconds


if __name__ == "__main__":
    main()
