"""What a figure was measured on: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "commit", "machine"]

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "numpy",
    "torch",
    "sentence-transformers",
    "openvino",
    "onnxruntime",
    "model2vec",
    "msgpack",
    "zstandard",
    "numkong",
)


def machine() -> dict[str, Any]:
    """Return processor, cores, memory (bytes), kernel, load (1 minute), Python and package versions (None: absent)."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def commit(folder: Path = ROOT) -> dict[str, Any] | None:
    """Return the checkout's revision, and whether files differ from it; None outside a checkout."""
    revision = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain")
    return None if revision is None else {"revision": revision, "modified": changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (no outside input)
    except FileNotFoundError:  # no git here
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
