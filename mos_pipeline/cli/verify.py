"""``mos-pipeline verify``: check every structure of a store on disk."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import store_option
from mos_pipeline.cli.output import as_bytes, counted, print_json, table
from mos_pipeline.cli.signals import Signals

if TYPE_CHECKING:
    from mos_pipeline.store.verify import Finding, VerifyReport

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "verify",
        parents=[common],
        help="check every structure of a store",
        description="Check every structure of a store on disk, also while it is in use. Nothing is changed. "
        "Ends with 4 where something is damaged or missing.",
    )
    store_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, _signals: Signals) -> ExitCode:
    """Print what the store consists of and what is wrong with it."""
    from mos_pipeline.config import load_config
    from mos_pipeline.store.verify import verify_store

    load_config(args.config)  # nothing here depends on a setting, but a wrong file is told as everywhere
    report = verify_store(args.store)
    if args.json:
        print_json(_as_dict(report))
    else:
        print(table(_rows(report)))
    return ExitCode.OK if report.ok else ExitCode.STORE


def _as_dict(report: VerifyReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "owner": report.owner,
        "pages": report.pages,
        "forgotten": report.forgotten,
        "repeated": report.repeated,
        "frames": report.frames,
        "bytes": report.bytes,
        "problems": [_finding(finding) for finding in report.problems],
        "notes": [_finding(finding) for finding in report.notes],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {"path": str(finding.path), "offset": finding.offset, "reason": finding.reason}


def _rows(report: VerifyReport) -> list[tuple[str, str]]:
    kinds = dict.fromkeys([*report.frames, *report.bytes])
    return [
        ("verdict", "everything is there and can be read" if report.ok else counted(len(report.problems), "problem")),
        ("owner", "none" if report.owner is None else f"process {report.owner}"),
        ("pages", f"{report.pages:,} ({report.repeated:,} met more than once, which is harmless)"),
        ("forgotten", counted(report.forgotten, "page")),
        *((kind, _share(report, kind)) for kind in kinds),
        *(("PROBLEM", f"{at.path}, offset {at.offset}: {at.reason}") for at in report.problems),
        *(("note", f"{at.path}, offset {at.offset}: {at.reason}") for at in report.notes),
    ]


def _share(report: VerifyReport, kind: str) -> str:
    size = as_bytes(report.bytes[kind])
    return f"{counted(report.frames[kind], 'frame')}, {size}" if kind in report.frames else size
