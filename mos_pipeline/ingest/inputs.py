"""What a command line names: files, folders, ``-``; as sources with their formats."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mos_pipeline.errors import InputError
from mos_pipeline.ingest.formats import SourceFile
from mos_pipeline.ingest.streams import STDIN, Stream, files_below
from mos_pipeline.legacy.folder import legacy_folder_of

__all__ = ["Inputs", "inputs_of"]


class Inputs(NamedTuple):
    """The sources, in their order; ``unknown`` are files in folders whose format can't be told."""

    sources: list[SourceFile]
    unknown: list[Path]


def inputs_of(paths: Iterable[Path], format: str, stdin: Stream | None, skip: Collection[Path]) -> Inputs:  # noqa: A002
    """Look at everything that ``paths`` names.

    Args:
        paths: files, folders, ``-``.
        format: that of all of them, or ``auto``.
        stdin: what ``-`` stands for.
        skip: folders and files that are left out where they lie in a folder.

    Raises:
        InputError: a file that is named can't be read, or its format can't be told; or it is part of a memory that
            ``migrate`` takes over.
    """
    inputs, left_out = Inputs([], []), {path.resolve() for path in skip}
    for path in paths:
        if path == STDIN and stdin is not None:
            inputs.sources.append(SourceFile.of(stdin, format))
        elif path.is_dir():
            for file in _in_folder(path, left_out):
                _refuse_legacy(file)
                _take(file, format, inputs)
        else:
            _refuse_legacy(path)
            inputs.sources.append(SourceFile.of(Stream(path), format))
    return inputs


def _refuse_legacy(file: Path) -> None:
    """Refuse a file of a data folder of the original MemoryOS: it is no conversation, but a part of one memory."""
    folder = legacy_folder_of(file)
    if folder is not None:
        raise InputError(
            f"{folder}: a data folder of the original MemoryOS, which is taken over as a whole: "
            f"mos-pipeline migrate {folder} --store DIR"
        )


def _in_folder(folder: Path, left_out: Collection[Path]) -> Iterator[Path]:
    for file in files_below(folder):
        resolved = file.resolve()
        if not any(resolved == path or path in resolved.parents for path in left_out):
            yield file


def _take(file: Path, format: str, inputs: Inputs) -> None:  # noqa: A002
    try:
        source = SourceFile.of(Stream(file), format)
    except InputError:
        inputs.unknown.append(file)
        return
    # What was left out once is read again where somebody names it: it would only be left out once more.
    if source.format != "quarantine" or format == "quarantine":
        inputs.sources.append(source)
