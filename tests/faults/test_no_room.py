"""A small /dev/shm and a full disk, as small file systems in a mount namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.common import PATIENCE_S
from tests.faults.processes import ROOT

pytestmark = pytest.mark.slow

MOUNT = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'


def mounted(size: str, where: Path | str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command with a small file system at ``where``, seen by nobody else."""
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", MOUNT, "sh", size, where, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE_S,
    )


@pytest.fixture(autouse=True)
def _may_mount(tmp_path: Path) -> None:
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("only root can mount a small file system, by unshare")
    tried = mounted("64k", tmp_path, ["true"])
    if tried.returncode:
        pytest.skip(f"no small file system can be mounted here: {tried.stderr.strip()}")


def run(size: str, where: Path | str, what: str, folder: Path) -> str:
    done = mounted(size, where, [sys.executable, "-m", "tests.faults.cramped", what, str(folder)])
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_small_dev_shm_costs_a_warning(tmp_path: Path) -> None:
    told = run("256k", "/dev/shm", "shm", tmp_path)
    assert told.count("new vectors go to files in") == 2, told  # at each opening once


def test_a_full_disk_refuses_pages_and_loses_none(tmp_path: Path) -> None:
    told = run("8m", tmp_path, "disk", tmp_path)
    assert "can be written again" in told
    assert told.count("can't be made ahead of need") < 20, "the log is flooded"


def test_a_store_on_a_full_disk_can_be_opened(tmp_path: Path) -> None:
    run("8m", tmp_path, "opening", tmp_path)
