"""``mos-pipeline doctor``: what is wrong, and the mend."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import store_option
from mos_pipeline.cli.output import clean, counted, print_json, table
from mos_pipeline.cli.signals import Signals

if TYPE_CHECKING:
    from mos_pipeline.doctor import Finding

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "doctor",
        parents=[common],
        help="say what is wrong with machine, configuration, model and store",
        description="Look at the machine, the configuration, the model and the store, and say what is wrong and what "
        "to do about it. Nothing is changed; it works beside an owner. Ends with 0 where there is no problem; else "
        "with 3 for the configuration, 5 for the model, 4 for the store or the machine.",
    )
    store_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, _signals: Signals) -> ExitCode:
    """Print all findings."""
    from mos_pipeline.doctor import Level, examine

    findings = examine(args.store, args.config)
    problems = [finding for finding in findings if finding.level == Level.PROBLEM]
    if args.json:
        print_json({"ok": not problems, "findings": [finding._asdict() for finding in findings]})
    else:
        print(table([(_mark(finding), _told(finding)) for finding in findings]))
        print(counted(len(problems), "problem"))
    return _code(problems)


def _mark(finding: Finding) -> str:
    return f"{finding.level.upper() if finding.level == 'problem' else finding.level:<8} {finding.area}"


def _told(finding: Finding) -> str:
    mend = f"\n{'':>18}→ {clean(finding.mend)}" if finding.mend else ""
    return f"{finding.what}: {clean(finding.found)}{mend}"


def _code(problems: list[Finding]) -> ExitCode:
    from mos_pipeline.doctor import Area

    codes = {Area.CONFIG: ExitCode.INPUT, Area.MODEL: ExitCode.WORKER}
    return codes.get(problems[0].area, ExitCode.STORE) if problems else ExitCode.OK
