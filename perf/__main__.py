"""The harness's command line: ``python -m perf BENCH …``, or ``all`` of them.

``python -m perf compare``, ``document``, ``peers``, ``recall``, ``report``, ``soak``, ``torture`` and ``tune`` have
command lines of their own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from perf.drawing import picture, save
from perf.options import LATENCY_MS, Options, backends, milliseconds, settings_of
from perf.processes import CpuShare
from perf.result import BenchResult
from perf.telling import begun, tell

__all__ = ["main"]

BENCHES = (
    "append",
    "ingest",
    "jsonl",
    "retrieve",
    "recover",
    "embed",
    "equal",
    "scale",
    "large",
    "busy",
    "backup",
    "flood",
    "llm",
    "growth",
    "readers",
    "memory",
    "cliff",
    "beside",
    "profile",
)
ENGINE_ALONE = frozenset({"profile"})  # with --quick by the fake model: the real one has to load twice for it
COMMANDS = ("backends", "compare", "document", "peers", "recall", "report", "soak", "torture", "tune")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches named, print the table; return 1 where ``--check`` is given and an aim is missed, else 0."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        command: Callable[[Sequence[str]], int] = import_module(f"perf.{arguments[0]}").main
        return command(arguments[1:])
    parser = _parser()
    given = parser.parse_args(arguments)
    names = BENCHES if "all" in given.bench else tuple(dict.fromkeys(given.bench))
    if given.plot is not None and "cliff" not in names:
        parser.error("--plot draws what the bench cliff measures: name it, too")
    backend = given.backend or Options().backend
    options = Options(
        given.quick, given.pages, backend, given.dataset, given.dir, given.latency_ms, settings_of(given.set)
    )
    alone = options if given.backend or not given.quick else replace(options, backend="fake")
    report = begun(given)
    results = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        share = CpuShare()
        result = _bench(name)(alone if name in ENGINE_ALONE else options)
        results.append(replace(result, others=share.others()))
        print(f"{name}: {share}", file=sys.stderr, flush=True)
    missed = tell(report, results, given.json)
    if given.plot is not None:
        save([curve for result in results if result.bench == "cliff" for curve in result.series], given.plot)
    return int(given.check and missed)


def _bench(name: str) -> Callable[[Options], BenchResult]:
    run: Callable[[Options], BenchResult] = import_module(f"perf.{name}").run
    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument("bench", nargs="+", choices=(*BENCHES, "all"))
    parser.add_argument("--quick", action="store_true", help="small sizes: minutes become seconds, figures rougher")
    parser.add_argument("--pages", type=_positive, metavar="N", help="pages, in place of each bench's own number")
    parser.add_argument("--dataset", type=Path, metavar="FILE", help="a LoCoMo file, in place of synthetic pages")
    parser.add_argument(
        "--backend",
        choices=backends(),
        help="for append, busy, profile and readers; others have their own (default: that of the settings; for a quick "
        "profile the fake one)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the pipelines measured, over a bench's own: embedding.precision=int8; can be repeated",
    )
    parser.add_argument(
        "--latency-ms", type=milliseconds, default=LATENCY_MS, metavar="MS", help="of the fake endpoint (default: 350)"
    )
    parser.add_argument("--plot", type=picture, metavar="FILE.svg", help="draw the cliff there, light and dark")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where stores are made, and removed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument("--check", action="store_true", help="return 1 where an aim is missed")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
