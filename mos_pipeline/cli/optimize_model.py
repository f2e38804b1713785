"""``mos-pipeline optimize-model``: make the int8 form of a model, measured before it is kept."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened_to_look, positive_int, restored
from mos_pipeline.cli.output import as_duration, print_json, say, table
from mos_pipeline.cli.signals import Signals, terminal_blocked
from mos_pipeline.config import QUANTISED, Config, load_config
from mos_pipeline.errors import InputError

__all__ = ["add_parser"]

TEXTS = 300
PAGES_AT_ONCE = 500
# Below, neighbours in a ranking change places often: at a mean of 0.99 a cosine is off by some hundredths, which is the
# distance of neighbours among a user's best pages.
LEAST_COSINE = 0.99
MOST_LOST = 0.02
DESCRIPTION = """Make the int8 form of the configured model, for embedding.backend openvino or onnx with
embedding.precision int8: once, kept in embedding.cache_dir. What it costs is measured first, by the cosines of the same
texts' vectors and by recall@10 of questions whose evidence is known, in the ranking by cosine alone. A form that loses
more than the bounds allow is not kept, unless --keep-anyway says so. A store that has vectors already takes it by
`mos-pipeline reembed`."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "optimize-model", parents=[common], help="make a quicker form of the embedding model", description=DESCRIPTION
    )
    parser.add_argument("--model", metavar="NAME", help="a model's name or folder (default: embedding.model)")
    parser.add_argument(
        "--backend", choices=QUANTISED, help="what will compute it (default: embedding.backend, or openvino)"
    )
    texts = parser.add_mutually_exclusive_group()
    texts.add_argument("--calibrate", type=Path, metavar="FILE", help="learn ranges from this file's pages")
    texts.add_argument("--store", type=Path, metavar="DIR", help="learn ranges from this store's pages")
    parser.add_argument(
        "--texts", type=positive_int, default=TEXTS, metavar="N", help=f"so many texts at most ({TEXTS})"
    )
    parser.add_argument(
        "--dataset", type=Path, action="append", default=[], metavar="FILE", help="measure with this LoCoMo file, too"
    )
    parser.add_argument(
        "--least-cosine", type=float, default=LEAST_COSINE, metavar="X", help=f"mean, to be kept ({LEAST_COSINE})"
    )
    parser.add_argument(
        "--most-recall-lost", type=float, default=MOST_LOST, metavar="X", help=f"recall@10, to be kept ({MOST_LOST})"
    )
    parser.add_argument("--keep-anyway", action="store_true", help="keep it whatever was measured")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, _signals: Signals) -> ExitCode:
    """Make the form, and print what was measured."""
    # What this needs is loaded here: each command begins with importing all of them.
    from mos_pipeline.cli.labelled import locomo_talks, sample_talks
    from mos_pipeline.engine.modelling import optimising
    from mos_pipeline.stages.optimise import Bounds

    config = _config(args)
    texts = _spread(_texts(args), args.texts)
    talks = sample_talks() + [talk for path in args.dataset for talk in locomo_talks(path)]
    bounds = Bounds(args.least_cosine, args.most_recall_lost, args.keep_anyway)
    say("note: it is made, and measured with fp32 beside it; this takes a minute or two")
    with terminal_blocked():
        work = optimising(config, texts, talks, bounds)
    with work:
        told = work.result()
    if args.json:
        print_json(told)
    else:
        print(table(_rows(told)))
    if told["kept"] and (told["within"] or bounds.kept):
        return ExitCode.OK
    must = f"the mean cosine must be {bounds.cosine:g} at least, and recall@10 lose {bounds.recall:g} at most"
    mend = "calibrate on texts like those to be stored (--calibrate, --store), or say --keep-anyway"
    if told["kept"]:  # it was there, and a store may be bound to it
        say(f"error: {told['folder']}: kept before, but {must}; {mend}")
    else:
        say(f"error: not kept: {must}; {mend}")
    return ExitCode.WORKER


def _config(args: argparse.Namespace) -> Config:
    config = load_config(args.config)
    backend = args.backend or (config.embedding.backend if config.embedding.backend in QUANTISED else QUANTISED[0])
    changes: dict[str, Any] = {"backend": backend, "precision": "int8", "tier": "full"}
    changes |= {"model": args.model} if args.model else {}
    return dataclasses.replace(config, embedding=dataclasses.replace(config.embedding, **changes))


def _texts(args: argparse.Namespace) -> list[str]:
    from mos_pipeline.cli.labelled import sample_calibration
    from mos_pipeline.ingest import read_source
    from mos_pipeline.messages import embedded_text

    if args.calibrate is not None:
        records = read_source(args.calibrate)
        found = _thinned((embedded_text(record.user_input, record.agent_response) for record in records), args.texts)
    elif args.store is not None:
        found = _stored(args)
    else:
        return sample_calibration()
    if not found:
        raise InputError(f"{args.calibrate or args.store}: no pages there to learn from; name others, or none")
    return found


def _stored(args: argparse.Namespace) -> list[str]:
    from mos_pipeline.messages import embedded_text

    with opened_to_look(args) as memory:
        if memory is None:
            raise InputError(f"{args.store}: there is no store here; check the path")
        found, total = list[str](), restored(memory).pages
        # Of a large store portions here and there, as many as are wanted.
        step = max(PAGES_AT_ONCE, total // 4)
        for offset in range(0, total, step):
            pages = memory.pages(offset=offset, limit=PAGES_AT_ONCE)
            found += [embedded_text(page.user_input, page.agent_response) for page in pages]
    return found


def _thinned(texts: Iterable[str], count: int) -> list[str]:
    """Return every, every second, every fourth … text: so that there are ``count`` at least, and fewer than twice that.

    All of them where there are fewer; of a large file no more are in memory.
    """
    kept, step = list[str](), 1
    for place, text in enumerate(texts):
        if place % step:
            continue
        kept.append(text)
        if len(kept) == 2 * count:
            kept, step = kept[::2], 2 * step
    return kept


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """Return ``count`` texts, as far apart as they can be."""
    if len(texts) <= count:
        return list(texts)
    return [texts[place * len(texts) // count] for place in range(count)]


def _rows(told: dict[str, Any]) -> list[tuple[str, str]]:
    lost = told["recall_fp32"] - told["recall_int8"]
    return [
        ("model", f"{told['model']}, int8, for {told['backend']}"),
        ("learned from", f"{told['texts']} texts" if told["texts"] else "nothing: ranges are found as it goes"),
        ("cosine to fp32", f"mean {told['cosine_mean']:.4f}, lowest {told['cosine_least']:.4f}"),
        (
            "recall@10",
            f"{told['recall_fp32']:.3f} with fp32, {told['recall_int8']:.3f} with int8 ({-lost:+.3f})",
        ),
        ("measured on", f"{told['questions']} questions, {told['pages']} pages, by cosine alone"),
        ("weights", f"SHA-256 {told['digest']}"),
        ("kept in", told["folder"] or "nowhere"),
        ("took", as_duration(told["seconds"])),
    ]
