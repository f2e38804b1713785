"""What ``python -m perf backends`` makes of its measurements."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mos_pipeline.config import Embedding
from mos_pipeline.errors import ModelNotFoundError
from perf.backends import PLAIN, _parts, _table, _texts
from perf.raw import raw_model


def test_ratios_are_told_part_by_part() -> None:
    rates = {
        PLAIN: [10.0, 40.0, 20.0],
        "torch fp32, ours": [11.0, 44.0, 22.0],
        "openvino int8, raw": [20.0, 80.0, 40.0],
        "openvino int8, ours": [30.0, 120.0, 60.0],
    }
    head, *rows = _table(rates, 90)
    assert "90 texts" in head
    told = {row[:24].strip(): [float(cell) for cell in row[24:].split()] for row in rows}
    assert told[PLAIN] == [20.0, 1.0, 1.0]
    assert told["torch fp32, ours"] == [22.0, 1.1, 1.1]
    assert told["openvino int8, ours"] == [60.0, 3.0, 1.5]


def test_each_text_is_in_one_part(tmp_path: Path) -> None:
    texts = _texts(None, 25)
    parts = list(_parts(texts, 4))
    assert [len(part) for part in parts] == [7, 6, 6, 6]
    assert sorted(text for part in parts for text in part) == sorted(texts)
    assert list(_parts(texts[:2], 4)) == [[texts[0]], [texts[1]]], "none is empty"
    assert all(text.startswith("User: ") for text in texts)
    lines = "".join(f'{{"user_id": "a", "user_input": "q{n}", "agent_response": "r"}}\n' for n in range(40))
    (tmp_path / "pages.jsonl").write_text(lines)
    chosen = _texts(tmp_path / "pages.jsonl", 4)
    assert chosen == [f"User: q{n} Assistant: r" for n in (0, 10, 20, 30)], "from all over the file"


def test_the_raw_way_reports_nothing_to_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "")
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with pytest.raises(ModelNotFoundError):  # long after that
        raw_model(Embedding(backend="openvino", model=str(tmp_path / "nowhere")))
    assert sys.modules["openvino_telemetry"] is None, "importing it fails"
