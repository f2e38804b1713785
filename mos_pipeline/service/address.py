"""The socket's place in a store's folder.

The address of a Unix socket holds 107 bytes. Where the folder's path is longer, it is named by way of a descriptor of
the folder, which Linux shows under /proc.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["bound", "connected"]

LONGEST = 107  # sun_path holds 108 bytes, the last of them a zero
BACKLOG = 16
_TIMEVAL = struct.Struct("@ll")  # seconds, microseconds


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Give an address of ``path`` that fits, for the length of the block.

    Raises:
        OSError: the folder can't be opened, or there is no /proc by which it could be named.
    """
    if len(os.fsencode(path)) <= LONGEST:
        yield os.fspath(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def bound(path: Path) -> socket.socket:
    """Return a socket that listens at ``path``, for this user alone; what a dead owner left there is replaced.

    Raises:
        OSError: it can't be had there: a file system without sockets, or a long path and no /proc.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # before there is a name: the file is made with this mode
        path.unlink(missing_ok=True)
        with _address(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def connected(path: Path, timeout_s: float) -> socket.socket:
    """Return a socket that is connected to the owner's at ``path``.

    Raises:
        OSError: nobody listens there, or not within ``timeout_s``.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not by settimeout: a connect that may not block fails at once where the owner's queue is full.
        seconds, rest = divmod(timeout_s, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(seconds), int(rest * 1e6)))
        with _address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection
