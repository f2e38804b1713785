"""MANIFEST: what a store consists of. A JSON object, replaced as a whole."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mos_pipeline.errors import StoreDamagedError, StoreVersionError
from mos_pipeline.store.folder import StoreFolder, disk_errors, fsync_folder, open_private, write_all

__all__ = ["FORMAT", "Manifest"]

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of MANIFEST.

    Attributes:
        format: version of the store's format.
        store: the store's random id, 16 hexadecimal digits.
        created: when it was made, ISO 8601 in UTC.
        segments: numbers of the valid segments, ascending; the last one is appended to.
        embedding: identity of the model its vectors come from (``{"model", "dimension", "digest", "backend", …}``), or
            None before the first.
    """

    format: int
    store: str
    created: str
    segments: tuple[int, ...] = ()
    embedding: dict[str, Any] | None = None

    @classmethod
    def new(cls) -> Manifest:
        """Return the MANIFEST of an empty store."""
        return cls(FORMAT, secrets.token_hex(8), datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def load(cls, folder: StoreFolder) -> Manifest:
        """Read the MANIFEST of a store.

        Raises:
            StoreVersionError: a newer version of the library made the store.
            StoreDamagedError: it is not a MANIFEST.
            StoreError: there is none, or it can't be read.
        """
        path = folder.manifest
        with disk_errors(path, "it could not be read"):
            text = path.read_bytes()
        try:
            content = json.loads(text)
            return cls._checked(folder, content)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            mend = "restore the file from a backup of the store; segments and journals are not touched"
            raise StoreDamagedError(f"{path}: this is not a MANIFEST ({error!r}); {mend}") from None

    @classmethod
    def _checked(cls, folder: StoreFolder, content: Any) -> Manifest:
        if type(content["format"]) is not int:
            raise TypeError("format is not a number")
        if content["format"] < 1:
            raise ValueError("there is no such format")
        if content["format"] > FORMAT:
            raise StoreVersionError(
                f"{folder.manifest}: the store has format {content['format']}, this version reads up to {FORMAT}; "
                "use the version of mos_pipeline that made it, or a newer one"
            )
        segments, embedding = content["segments"], content["embedding"]
        if not all(type(number) is int and number > 0 for number in segments) or sorted(set(segments)) != segments:
            raise ValueError("segments are not ascending numbers")
        if embedding is not None and type(embedding) is not dict:
            raise TypeError("embedding is not an object")
        return cls(content["format"], str(content["store"]), str(content["created"]), tuple(segments), embedding)

    def save(self, folder: StoreFolder) -> None:
        """Replace the store's MANIFEST by this one, at once and durably.

        Raises:
            StoreFullError, StoreError: it could not be written; the old one may be in force, or this one.
        """
        data = (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()
        new = folder.manifest.with_suffix(".new")
        with disk_errors(folder.manifest, "it could not be replaced"):
            descriptor = open_private(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                write_all(descriptor, data, 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            new.replace(folder.manifest)
            fsync_folder(folder.root)

    def with_segment(self, number: int) -> Manifest:
        """Return a copy that names one more segment."""
        return replace(self, segments=(*self.segments, number))

    def with_embedding(self, identity: dict[str, Any]) -> Manifest:
        """Return a copy with the embedding model's identity."""
        return replace(self, embedding=identity)
