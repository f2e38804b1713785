"""How much memory a process has, as the kernel tells it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["own_memory"]

OWN = (b"RssAnon:", b"RssFile:")


def own_memory(pid: int) -> int:
    """Return the bytes of memory that a process has for itself: what is resident, without blocks of shared memory.

    Code of libraries counts, though other processes may use the same pages. 0 where the process has ended, or the
    system has no /proc. It takes some 30 µs.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(OWN))  # the unit is KiB
