"""docs/reliability.md promises what tests show: every row names one that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "reliability.md"
COLUMNS = 5


def rows() -> list[list[str]]:
    """Return the cells of every row of every table, but for heads and the lines below them."""
    lines = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "fault" and not set(row[0]) <= {"-"}]


def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_there_is_a_test_for_every_row() -> None:
    assert len(rows()) >= 60
    for row in rows():
        assert len(row) == COLUMNS and all(row), row
        named = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[-1])
        assert named, f"no test: {row}"
        assert named[2] in functions_of(ROOT / named[1]), f"no such test: {row[-1]}"


def test_no_row_is_there_twice() -> None:
    told = [tuple(row[:3]) for row in rows()]
    assert len(set(told)) == len(told)
