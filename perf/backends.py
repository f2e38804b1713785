"""Texts a second by each backend, the library's own and ours, over the same texts: ``python -m perf backends``.

Each way is a process of its own with the model loaded; the texts come in parts, and each part is encoded by every way
in turn, so that what else the machine does meanwhile hits all alike. Ratios are told part by part, by their median. The
int8 form must be there: ``mos-pipeline optimize-model``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mos_pipeline.config import load_config
from mos_pipeline.messages import embedded_text
from perf.children import Child
from perf.texts import Page, dataset_pages, synthetic_pages
from perf.timing import median

__all__ = ["main"]

PLAIN = "torch fp32, raw"
FORMS: dict[str, dict[str, Any]] = {
    "torch fp32": {"backend": "torch", "precision": "fp32"},
    "openvino fp32": {"backend": "openvino", "precision": "fp32"},
    "openvino int8": {"backend": "openvino", "precision": "int8"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every way in turn, and print the table."""
    given = _parser().parse_args(arguments)
    base = load_config(given.config).as_dict()["embedding"]
    texts = _texts(given.dataset, given.texts)
    with ExitStack() as stack:
        children = {
            f"{form}, {kind}": stack.enter_context(Child("raw", json.dumps({**base, **settings}), kind))
            for form, settings in FORMS.items()
            for kind in ("raw", "ours")
        }
        for child in children.values():
            child.ask("encode", texts=texts[:1])  # answers when its model is loaded
        rates: dict[str, list[float]] = {way: [] for way in children}
        for part in _parts(texts, given.parts):
            for way, child in children.items():
                rates[way].append(len(part) / child.ask("encode", texts=part))
    print("\n".join(_table(rates, len(texts))))
    return 0


def _texts(dataset: Path | None, count: int) -> list[str]:
    pages: list[Page] = dataset_pages(dataset) if dataset is not None else [*_first(count)]
    chosen = pages[:: max(1, len(pages) // count)][:count]
    return [embedded_text(page["user_input"], page["agent_response"]) for page in chosen]


def _first(count: int) -> Iterator[Page]:
    for _, page in zip(range(count), synthetic_pages(), strict=False):
        yield page


def _parts(texts: Sequence[str], count: int) -> Iterator[list[str]]:
    for number in range(min(count, len(texts))):  # none is empty
        yield list(texts[number::count])


def _table(rates: dict[str, list[float]], texts: int) -> Iterator[str]:
    yield f"{'texts a second':<24} {'median':>8} {'of plain':>9} {'of its own raw rate':>20}   ({texts} texts)"
    for way, found in rates.items():
        raw = rates[f"{way.rpartition(',')[0]}, raw"]
        yield f"{way:<24} {median(found):>8.1f} {_ratio(found, rates[PLAIN]):>9.2f} {_ratio(found, raw):>20.2f}"


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return median([one / other for one, other in zip(above, below, strict=True)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf backends", description=__doc__)
    parser.add_argument("--dataset", type=Path, metavar="FILE", help="a LoCoMo file, in place of synthetic pages")
    parser.add_argument("--texts", type=int, default=720, metavar="N", help="720 by default")
    parser.add_argument("--parts", type=int, default=6, metavar="N", help="6 by default")
    parser.add_argument("--config", metavar="FILE", help="a YAML file with settings: the model, the cache, threads")
    return parser
