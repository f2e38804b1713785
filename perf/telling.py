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

__all__ = ["begun", "tell"]


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


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
