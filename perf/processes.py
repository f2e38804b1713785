"""What Linux tells about processes: who descends from whom, memory and processor time; disk space of a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["CpuShare", "cpu_seconds", "disk_bytes", "family", "pss_bytes"]

_PPID, _UTIME, _STIME = 1, 11, 12  # places in /proc/<pid>/stat after the name in brackets
_BLOCK = 512  # st_blocks is in these, whatever the file system's block is


def family(pid: int) -> list[int]:
    """Return ``pid`` and all processes that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[_PPID]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of ``pid`` and its descendants: memory they share counts once."""
    return sum(_pss(member) for member in family(pid))


def cpu_seconds(pids: tuple[int, ...]) -> float:
    """Return the processor time that processes have used up to now."""
    ticks = sum(int(fields[_UTIME]) + int(fields[_STIME]) for fields in map(_stat, pids) if fields)
    return ticks / os.sysconf("SC_CLK_TCK")


def disk_bytes(folder: Path) -> tuple[int, int]:
    """Return the bytes of all blocks of the files in ``folder``, and the sum of their lengths."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(_BLOCK * stat.st_blocks for stat in stats), sum(stat.st_size for stat in stats)


class CpuShare:
    """How many cores other processes have used since this was made.

    Ours are this process and its descendants that have ended and been waited for. Orphans of a killed child count as
    others, so where a bench kills, the share is an upper bound.
    """

    def __init__(self) -> None:
        self._begun, self._all, self._ours = time.monotonic(), _busy_seconds(), _own_seconds()

    def __str__(self) -> str:
        """Tell the time since then, and the processor time of it that was ours."""
        return f"{time.monotonic() - self._begun:.1f} s, {_own_seconds() - self._ours:.1f} s of processor time"

    def others(self) -> float:
        """Return the cores that others have used on the average."""
        everyone, ours = _busy_seconds() - self._all, _own_seconds() - self._ours
        return max(0.0, everyone - ours) / max(time.monotonic() - self._begun, 1e-9)


def _busy_seconds() -> float:
    """Return the processor time of the whole machine that was neither idle nor waiting for a disk."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, _first_line("/proc/stat").split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _first_line(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").partition("\n")[0]


def _own_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on; none where the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
