"""What a run has found, told as a table and as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perf.machine import commit, machine
from perf.result import BenchResult, table

__all__ = ["begun", "read_report", "tell"]


def begun(given: argparse.Namespace) -> dict[str, Any]:
    """Return what is known of a run before it: commit, machine, time, arguments."""
    return {
        "commit": commit(),
        "machine": machine(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": {name: _plain(value) for name, value in vars(given).items()},
    }


def tell(report: dict[str, Any], results: Sequence[BenchResult], file: Path | None) -> bool:
    """Print the table, write everything to ``file`` where there is one, and return whether an aim is missed."""
    print(table(results))
    if file is not None:
        benches = {result.bench: result.as_dict() for result in results}
        file.write_text(json.dumps({**report, "benches": benches}, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return any(figure.met is False for result in results for figure in result.figures)


def read_report(path: Path, *needed: str) -> dict[str, Any]:
    """Return what ``tell`` has written to a file; ``needed`` are names that it must have besides "benches".

    Raises:
        SystemExit: it is no such file.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
        found = isinstance(report["benches"], dict) and all(name in report for name in needed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path}: no result of python -m perf --json: {error}") from None
    if not found:
        raise SystemExit(f"{path}: no result of python -m perf --json: benches, or one of {needed}, is missing")
    return report


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
