"""Read a conversation of 200 pages into a store, ask it 16 questions, and show what it knows of the two users.

    python examples/demo.py [--store DIR] [--config FILE]

Run it twice: the second time nothing is read again, and the answers come from what was stored.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline, MosError, Page
from mos_pipeline.cli import main as mos_pipeline_command
from mos_pipeline.cli.output import indented, labelled
from mos_pipeline.cli.query import hit_lines, profile_lines

HERE = Path(__file__).parent
SHOWN = 3
FACTS_SHOWN = 5
ASKED_FOR = 10
MODEL_LOADS_S = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; return an exit code of the command line's."""
    parser = argparse.ArgumentParser(description="Read a conversation into a store and ask it questions.")
    parser.add_argument("--store", type=Path, default=Path("memory"), help="the store's folder (default: ./memory)")
    parser.add_argument("--config", help="a YAML file with settings")
    args = parser.parse_args(argv)
    conversation = HERE / "conversation.jsonl"

    print(f"Reading {conversation.name} into {args.store}; the model needs some seconds to load …", flush=True)
    config = ["--config", args.config] if args.config else []
    if code := mos_pipeline_command(["ingest", str(conversation), "--store", str(args.store), *config]):
        return code
    questions = read_lines(HERE / "questions.jsonl")
    try:
        with MemoryPipeline.open(args.store, config=args.config) as pipeline:
            ranks = [ask(pipeline, question, read_lines(conversation)) for question in questions]
            for user, assistant in dict.fromkeys((one["user_id"], one["assistant_id"]) for one in questions):
                print_known(pipeline, user, assistant)
    except MosError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_result(ranks, args.store)
    return 0


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ask(pipeline: MemoryPipeline, question: dict[str, Any], conversation: list[dict[str, Any]]) -> int | None:
    """Print a question with the best pages and the nearest fact known of the user.

    Returns the rank, from 1, of the first page that is evidence; None past 10.
    """
    found = pipeline.retrieve(
        question["user_id"],
        question["question"],
        assistant_id=question["assistant_id"],
        k=ASKED_FOR,
        timeout=MODEL_LOADS_S,
    )
    evidence = [conversation[line - 1] for line in question["evidence"]]
    print(f"\n{question['user_id']}: {question['question']}")
    if found.degraded:
        print("  (the model did not answer in time: words alone decided)")
    ranks = [rank for rank, hit in enumerate(found.pages, 1) if any(is_page(hit.page, line) for line in evidence)]
    for rank, hit in enumerate(found.pages[:SHOWN], 1):
        print("\n".join(hit_lines(rank, hit, mark="   <- evidence" if rank in ranks else "")))
    for known in found.user_knowledge[:1]:
        print(labelled("known", known.fact.text))
    return ranks[0] if ranks else None


def print_known(pipeline: MemoryPipeline, user: str, assistant: str) -> None:
    """Print the topics that are most alive, the profile's first lines and the latest facts."""
    print(f"\nWhat the memory knows of {user}")
    print("  topics, hottest first")
    for session in pipeline.sessions(user, assistant_id=assistant, limit=SHOWN):
        pages = len(session.page_ids)
        print(indented(f"heat {session.heat:.1f}, {pages} pages: {', '.join(session.keywords)}"))
    print("  profile")
    for line in profile_lines(pipeline.profile(user, assistant_id=assistant).text):
        print(indented(line))
    print("  latest facts")
    for fact in pipeline.knowledge(user, assistant_id=assistant)[-FACTS_SHOWN:]:
        print(indented(f"{fact.timestamp} {fact.text}"))


def is_page(page: Page, line: dict[str, Any]) -> bool:
    """Tell whether ``page`` was read from this line of the conversation."""
    return all(
        getattr(page, name) == line[name]
        for name in ("user_id", "assistant_id", "user_input", "agent_response", "timestamp")
    )


def print_result(ranks: Sequence[int | None], store: Path) -> None:
    """Print how many questions found their evidence."""
    print()
    for limit in (SHOWN, ASKED_FOR):
        count = sum(rank is not None and rank <= limit for rank in ranks)
        print(f"Evidence within the first {limit:>2} pages: {count} of {len(ranks)} questions")
    print(
        f"The store lies in {store.resolve()}; ask it: mos-pipeline query --store {store} --user mira \\\n"
        '    --assistant companion "What became of the cat?"\n'
        "The commands sessions, profile, knowledge and forget take the same options."
    )


if __name__ == "__main__":
    sys.exit(main())
