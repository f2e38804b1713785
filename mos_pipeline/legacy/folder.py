"""The files of a data folder: which there are, and what JSON they hold, plain or gzipped. Opened for reading alone."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from errno import ENOENT
from pathlib import Path
from typing import Any

from mos_pipeline.errors import InputError
from mos_pipeline.legacy.model import Problem

__all__ = ["ASSISTANT", "FILES", "LONG", "MID", "SHORT", "LegacyFolder", "legacy_folder_of"]

SHORT, MID, LONG, ASSISTANT = "short_term.json", "mid_term.json", "long_term_user.json", "long_term_assistant.json"
GZIP = b"\x1f\x8b"
FILES = {"users": (SHORT, MID, LONG), "assistants": (ASSISTANT,)}


def legacy_folder_of(file: Path) -> Path | None:
    """Return the data folder of the original MemoryOS that ``file`` belongs to, by the names; None where to none."""
    path = file.resolve()
    if len(path.parts) < 4 or path.name.removesuffix(".gz") not in FILES.get(path.parents[1].name, ()):
        return None
    return path.parents[2]


class LegacyFolder:
    """A data folder.

    Attributes:
        users: the ids of its users, sorted: their folders' paths below ``users``, as a slash in an id made folders.
        assistants: likewise.
        problems: folders and links that can't be read.
    """

    def __init__(self, path: Path) -> None:
        """Look at ``path``.

        Raises:
            InputError: it is no such folder, or can't be read.
        """
        self.path = path
        self.problems: list[Problem] = []
        if not path.is_dir():
            raise InputError(f"{path}: not a folder; name the data folder (data_storage_path) of MemoryOS")
        self.users, self.assistants = (sorted(self._names(kind)) for kind in FILES)
        self.problems.sort()
        if not self.users and not self.assistants:
            if self.problems:
                raise InputError(f"{path}: {self.problems[0]}; check its permissions")
            raise InputError(
                f"{path}: holds no users/<id>/{SHORT} (or {MID}, {LONG}); name the data folder (data_storage_path) of "
                "MemoryOS itself"
            )

    def _names(self, kind: str) -> Iterator[str]:
        """Yield the paths below the folder ``kind`` of those that hold any of its files."""
        root, wanted = self.path / kind, {name for file in FILES[kind] for name in (file, f"{file}.gz")}
        for place, folders, files in os.walk(root, onerror=self._unreadable, followlinks=True):
            folder = Path(place)
            if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
                folders.clear()  # a circle
                continue
            if folder != root and not wanted.isdisjoint(files):
                yield folder.relative_to(root).as_posix()
            for name in set(files) - wanted:
                if (link := folder / name).is_symlink() and not link.exists():
                    self._unreadable(FileNotFoundError(ENOENT, os.strerror(ENOENT), str(link)))

    def _unreadable(self, error: OSError) -> None:
        shown = Path(error.filename).relative_to(self.path).as_posix()
        if shown not in FILES or not isinstance(error, FileNotFoundError | NotADirectoryError):  # one may be missing
            self.problems.append(Problem(shown, "", f"can't be read ({error.strerror})"))

    def load(self, kind: str, name: str, file: str) -> tuple[str, Any, Problem | None]:
        """Return a file's name below the folder, its JSON (None: there is none), and what is wrong with it.

        Of a plain file and a compressed one beside it, the one that was written last counts.
        """
        plain = self.path / kind / name / file
        try:
            found = [path for path in (plain, plain.with_name(f"{file}.gz")) if path.exists() or path.is_symlink()]
            if not found:
                return f"{kind}/{name}/{file}", None, None
            path = max(found, key=lambda one: one.stat().st_mtime_ns)
            shown = f"{kind}/{name}/{path.name}"
            data = path.read_bytes()
        except OSError as error:
            shown = f"{kind}/{name}/{file}"
            return shown, None, Problem(shown, "", f"can't be read ({error.strerror})")
        try:
            text = gzip.decompress(data) if data.startswith(GZIP) else data
            return shown, json.loads(text), None
        except EOFError:
            return shown, None, Problem(shown, "", "is cut off: the compressed data has no end")
        except (zlib.error, gzip.BadGzipFile) as error:
            return shown, None, Problem(shown, "", f"is damaged: it can't be unpacked ({error})")
        except (ValueError, RecursionError) as error:
            return shown, None, Problem(shown, "", f"is no JSON ({error})")
