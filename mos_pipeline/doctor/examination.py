"""All checks, in the order in which they are shown."""

from __future__ import annotations

import os
from pathlib import Path

from mos_pipeline.config import Config, load_config
from mos_pipeline.doctor.finding import Area, Finding, ok, problem
from mos_pipeline.doctor.machine import check_disk, check_machine
from mos_pipeline.doctor.settings import check_endpoint, check_model, check_settings
from mos_pipeline.doctor.stored import check_store
from mos_pipeline.errors import ConfigError

__all__ = ["examine"]


def examine(store: str | os.PathLike[str], config: str | os.PathLike[str] | None = None) -> list[Finding]:
    """Look at everything that a pipeline with this store and this configuration file needs. Changes nothing."""
    root = Path(store).absolute()
    settings, findings = _settings(config)
    return [
        *check_machine(settings),
        *check_disk(root, settings),
        *findings,
        *check_settings(settings),
        *check_endpoint(settings),
        *check_model(root, settings),
        *check_store(root),
    ]


def _settings(config: str | os.PathLike[str] | None) -> tuple[Config, list[Finding]]:
    """Return the settings, the defaults where they can't be read, and whether they can."""
    try:
        return load_config(config), [ok(Area.CONFIG, "settings", "all known, and in their ranges")]
    except ConfigError as error:
        mend = "mend the setting that is named; the other checks here are made with the defaults"
        return Config(), [problem(Area.CONFIG, "settings", str(error), mend)]
