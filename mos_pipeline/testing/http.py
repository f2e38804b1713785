"""As much of HTTP/1.1 as the fake server needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

__all__ = ["HttpRequest", "head", "read_request"]


class HttpRequest(NamedTuple):
    """A request; ``body`` is its JSON object, empty where it has none."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


async def read_request(reader: asyncio.StreamReader) -> HttpRequest | None:
    """Return the next request of a connection; None where the client has closed it.

    Raises:
        ConnectionError, IncompleteReadError: it broke off.
    """
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    fields = [line.partition(":") for line in lines[1:] if line]
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    data = await reader.readexactly(int(headers.get("content-length", "0")))
    try:
        body = json.loads(data) if data else {}
    except ValueError:
        body = {}
    return HttpRequest(lines[0].split(" ")[1], headers, body if isinstance(body, dict) else {})


def head(status: int, kind: str, length: int, headers: Mapping[str, str]) -> bytes:
    """Return an answer's status line and headers."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    fields = {"Content-Type": kind, "Content-Length": str(length), **headers}
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")
