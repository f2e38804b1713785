"""Other libraries to measure beside: ``python -m perf peers install``.

Each is installed into a folder of its own, laid over this environment's packages by PYTHONPATH when its program runs;
so all have the same sentence-transformers and torch. ``memoryos-pro`` goes without the dependencies that it pins (a
GPU's faiss, an old numpy), beside ``faiss-cpu``; ``mem0ai`` has its own, and Qdrant's client, a store on the disk, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perf.machine import ROOT

__all__ = ["FOLDER", "INSTALL", "MEM0", "MEMORYOS", "Peer", "main", "peer"]

FOLDER = ROOT / ".peers"
INSTALL = "python -m perf peers install"
MEMORYOS, MEM0 = "memoryos-pro", "mem0ai"
WHEELS = {
    MEMORYOS: ("--no-deps", "memoryos-pro==0.1.0", "faiss-cpu"),
    MEM0: ("mem0ai>=2,<3", "qdrant-client"),
}
PROGRAMS = {MEMORYOS: "peer_memoryos.py", MEM0: "peer_mem0.py"}
RUN_S = 1800.0


class Peer:
    """A library that is installed in ``folder``."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def run(self, task: Mapping[str, Any]) -> Any:
        """Have its program do a task, and return what it found.

        Raises:
            RuntimeError: it failed, or took too long.
        """
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        # -P: not with this folder before everything, whose modules have names of the standard library's.
        command = [sys.executable, "-P", str(Path(__file__).with_name(PROGRAMS[self.name]))]
        try:
            done = subprocess.run(  # noqa: S603 (this interpreter, our own program)
                command,
                input=json.dumps(task),
                env=environment,
                capture_output=True,
                text=True,
                timeout=RUN_S,
                check=False,
                cwd=self.folder,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{self.name} was not done after {RUN_S:g} s") from None
        if done.returncode:
            raise RuntimeError(f"{self.name} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])


def peer(name: str, folder: Path = FOLDER) -> Peer | None:
    """Return a peer; None where it is not installed."""
    return Peer(name, folder / name) if (folder / name / "installed").exists() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Install every peer that is not there yet."""
    parser = argparse.ArgumentParser(prog="python -m perf peers", description=__doc__)
    parser.add_argument("command", choices=("install",))
    parser.add_argument("--dir", type=Path, default=FOLDER, metavar="DIR", help="where to (default: .peers)")
    given = parser.parse_args(arguments)
    for name in WHEELS:
        if peer(name, given.dir) is None:
            _install(name, given.dir / name)
        print(f"{name}: {given.dir / name}")
    return 0


def _install(name: str, folder: Path) -> None:
    options = ["--quiet", "--only-binary", ":all:", "--disable-pip-version-check", "--upgrade"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), *WHEELS[name]]
    subprocess.run(command, check=True)  # noqa: S603 (this interpreter, names from above)
    (folder / "installed").touch()
