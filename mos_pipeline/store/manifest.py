"""MANIFEST: what a store consists of. A JSON object with a checksum of what it says, replaced as a whole.

Format 2 knows tombstones, frames that replace others, and segments in an order that is not that of their numbers;
format 3 generations of vectors. An owner raises the format of an older store when it opens it, before any of these can
come into it: an older version of the library, which would bring forgotten pages back, or compare vectors of two models,
refuses it from then on.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zlib import crc32

from mos_pipeline.errors import StoreDamagedError, StoreVersionError
from mos_pipeline.store.codec import GENERATIONS
from mos_pipeline.store.folder import StoreFolder, disk_errors, fsync_folder, write_private

__all__ = ["FORMAT", "UNFINISHED", "Manifest", "Retired"]

FORMAT = 3
UNFINISHED = b"a copy of a store that is not finished\n"  # in the place of a MANIFEST


class Retired(NamedTuple):
    """A segment that was replaced: its number, and the last generation that it belonged to."""

    number: int
    generation: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of MANIFEST.

    Attributes:
        format: version of the store's format.
        store: the store's random id, 16 hexadecimal digits.
        created: when it was made, ISO 8601 in UTC.
        segments: numbers of the valid segments, in the order of what they tell; the last one is appended to.
        embedding: identity of the model its vectors come from (``{"model", "dimension", "digest", "backend", …}``), or
            None before the first.
        generation: how often segments were replaced by rewritten ones.
        drafts: numbers of segments that are being rewritten, or were when the writer died: nobody needs them yet.
        retired: segments that were replaced, and whose files may still be there for readers of an older generation.
        highest: the highest number that a segment ever had; none is given twice.
        vector_generation: that of the model's vectors, 0 to 255; frames with another one have vectors of a model that
            the store was made with before, which are never used.
    """

    format: int
    store: str
    created: str
    segments: tuple[int, ...] = ()
    embedding: dict[str, Any] | None = None
    generation: int = 0
    drafts: tuple[int, ...] = ()
    retired: tuple[Retired, ...] = ()
    highest: int = 0
    vector_generation: int = 0

    @classmethod
    def new(cls) -> Manifest:
        """Return the MANIFEST of an empty store."""
        return cls(FORMAT, os.urandom(8).hex(), datetime.now(UTC).isoformat(timespec="seconds"))

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
            if path.is_fifo():  # which would be waited for
                raise StoreDamagedError(f"{path}: a named pipe, and not a MANIFEST; restore it from a backup")
            text = path.read_bytes()
        if text == UNFINISHED:
            raise StoreDamagedError(f"{path}: a backup that was never finished; make another, or use an older one")
        try:
            return cls._checked(folder, json.loads(text))
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
        if content.pop("checksum", None) not in {None, _checksum(content)}:  # there is none in those of older versions
            raise ValueError("its checksum is wrong")
        embedding = content["embedding"]
        if embedding is not None and type(embedding) is not dict:
            raise TypeError("embedding is not an object")
        return cls(
            content["format"],
            str(content["store"]),
            str(content["created"]),
            _distinct(content["segments"]),
            embedding,
            _number(content.get("generation", 0)),
            _distinct(content.get("drafts", [])),
            tuple(Retired(*map(_number, pair)) for pair in content.get("retired", [])),
            _number(content.get("highest", 0)),
            _number(content.get("vector_generation", 0), below=GENERATIONS),
        )

    def save(self, folder: StoreFolder) -> None:
        """Replace the store's MANIFEST by this one, at once and durably.

        Raises:
            StoreFullError, StoreError: it could not be written; the old one may be in force, or this one.
        """
        content = asdict(self)
        data = _text({**content, "checksum": _checksum(content)})
        new = folder.manifest.with_suffix(".new")
        with disk_errors(folder.manifest, "it could not be replaced"):
            write_private(new, data, os.O_TRUNC)
            new.replace(folder.manifest)
            fsync_folder(folder.root)

    @property
    def next_number(self) -> int:
        """The number of the next segment."""
        return 1 + max(self.highest, *self.named, 0)

    @property
    def named(self) -> frozenset[int]:
        """The numbers of all files that may be there: of segments, drafts and retired segments."""
        return frozenset((*self.segments, *self.drafts, *(segment.number for segment in self.retired)))

    def upgraded(self) -> Manifest:
        """Return a copy in the newest format."""
        return replace(self, format=FORMAT)

    def with_segment(self, number: int) -> Manifest:
        """Return a copy that names one more segment."""
        return replace(self, segments=(*self.segments, number), highest=max(number, self.highest))

    def with_draft(self, number: int) -> Manifest:
        """Return a copy that names one more draft."""
        return replace(self, drafts=(*self.drafts, number), highest=max(number, self.highest))

    def without_drafts(self) -> Manifest:
        """Return a copy whose drafts were given up."""
        return replace(self, drafts=())

    def compacted(self, rewritten: Mapping[int, Collection[int]]) -> Manifest:
        """Return the next generation, where drafts stand in the places of the segments that they were rewritten from.

        Args:
            rewritten: by each old segment's number, those of the drafts that take its place, which may be none.
        """
        return replace(
            self,
            segments=tuple(new for number in self.segments for new in rewritten.get(number, (number,))),
            generation=self.generation + 1,
            drafts=(),
            retired=(*self.retired, *(Retired(number, self.generation) for number in rewritten)),
        )

    def without_retired(self, removed: Collection[int]) -> Manifest:
        """Return a copy that does not name the retired segments ``removed``."""
        return replace(self, retired=tuple(segment for segment in self.retired if segment.number not in removed))

    def with_embedding(self, identity: dict[str, Any], generation: int | None = None) -> Manifest:
        """Return a copy with the embedding model's identity, and its vectors' generation where that is another."""
        generation = self.vector_generation if generation is None else generation
        return replace(self, embedding=identity, vector_generation=generation)


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _checksum(content: Mapping[str, Any]) -> int:
    """Return the CRC-32 of what MANIFEST says, but for the checksum itself."""
    return crc32(_text(content))


def _number(value: Any, below: float = math.inf) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise ValueError(f"{value!r} is not a number from 0 on, below {below}")
    return value


def _distinct(values: Any) -> tuple[int, ...]:
    numbers = tuple(map(_number, values))
    if len(set(numbers)) != len(numbers) or 0 in numbers:
        raise ValueError("segments are not distinct numbers from 1 on")
    return numbers
