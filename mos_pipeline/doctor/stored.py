"""The store: owner, format, damage, rights, what was put aside."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mos_pipeline.doctor.finding import Area, Finding, note, ok, problem
from mos_pipeline.errors import MosError, StoreError
from mos_pipeline.service.client import RemoteMemory
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.derived import decode_aside
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.lock import live_owner
from mos_pipeline.store.manifest import FORMAT, Manifest
from mos_pipeline.store.scanning import Frame
from mos_pipeline.store.segments import SegmentReader
from mos_pipeline.store.verify import verify_store

__all__ = ["check_store"]

SHOWN = 20  # of each kind of finding


def check_store(root: Path) -> Iterator[Finding]:
    """Look at the store in the folder ``root``."""
    folder = StoreFolder(root)
    if not root.exists():
        yield note(Area.STORE, "folder", f"{root}: there is none", "nothing: it is made when it is first opened")
        return
    if not root.is_dir():
        yield problem(Area.STORE, "folder", f"{root}: it is no folder", "name another place for the store")
        return
    yield from _rights(root)
    yield from _kept_aside(folder)
    try:
        if not folder.has_manifest():
            mend = "check the path; an empty folder becomes a store when opened"
            yield note(Area.STORE, "MANIFEST", "there is none", mend)
            return
        manifest = Manifest.load(folder)
    except StoreError as error:
        yield problem(Area.STORE, "MANIFEST", str(error), "restore a backup")
        return
    yield ok(Area.STORE, "format", f"{manifest.format} (this version reads up to {FORMAT}), id {manifest.store}")
    yield from _damage(root)
    owner = live_owner(folder.lock)
    if owner is None:
        yield ok(Area.STORE, "owner", "none")
        yield from _set_aside(_aside_of(folder, manifest))
    else:
        yield from _of_owner(root, owner)


def _rights(root: Path) -> Iterator[Finding]:
    open_to_others, foreign = list[Path](), list[Path]()
    for path in (root, *root.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:  # the owner has removed it meanwhile
            continue
        if status.st_uid != os.geteuid():
            foreign.append(path)
        elif not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o077:
            open_to_others.append(path)
    for path in foreign[:SHOWN]:
        mend = f"chown -R {os.geteuid()} {root}, or work as its owner"
        yield problem(Area.STORE, "rights", f"{path} belongs to another user", mend)
    for path in open_to_others[:SHOWN]:
        mend = f"chmod -R go= {root}"
        yield note(Area.STORE, "rights", f"{path} is open to other users ({stat.filemode(path.lstat().st_mode)})", mend)
    if not foreign and not open_to_others:
        yield ok(Area.STORE, "rights", "private")


def _kept_aside(folder: StoreFolder) -> Iterator[Finding]:
    kept = sorted(folder.aside.iterdir()) if folder.aside.is_dir() else []
    if kept:
        size = sum(path.stat().st_size for path in kept)
        found = f"{len(kept)} files, {size:,} bytes in {folder.aside}: what could not be read, or was broken off"
        yield note(Area.STORE, "kept bytes", found, "look into them, or delete them; nothing needs them")


def _damage(root: Path) -> Iterator[Finding]:
    report = verify_store(root)
    for at in report.problems[:SHOWN]:
        mend = "restore a backup; or go on: only what is damaged is lost, and derived data is made again"
        yield problem(Area.STORE, "damage", f"{at.path}, offset {at.offset}: {at.reason}", mend)
    for at in report.notes[:SHOWN]:
        yield note(Area.STORE, "leftover", f"{at.path}, offset {at.offset}: {at.reason}", "nothing: opening mends it")
    if report.ok:
        yield ok(Area.STORE, "damage", f"none; {report.pages:,} pages, {report.bytes.total():,} bytes")


def _of_owner(root: Path, owner: int) -> Iterator[Finding]:
    """Ask the owner, who knows best."""
    try:
        stats = RemoteMemory(root).stats()
    except MosError as error:
        yield note(Area.STORE, "owner", f"process {owner}, which can't be asked: {error}", "see runtime.socket")
        return
    yield ok(Area.STORE, "owner", f"process {owner}, which answers")
    for role, worker in stats.workers.items():
        if worker.state == "failed":
            yield problem(Area.STORE, f"worker {role}", worker.error or "down", "mend what it says; reopen the store")
    if stats.endpoint.startswith("down"):
        mend = "see that it runs, and llm.base_url; it is asked again by itself"
        yield note(Area.STORE, "endpoint", f"the language model's is {stats.endpoint}", mend)
    if stats.owed:
        owed = ", ".join(f"{task} of {pages:,}" for task, pages in stats.owed.items())
        yield note(
            Area.STORE, "owed", f"pages by task: {owed}", "nothing: it is asked for again; or mos-pipeline repay"
        )
    yield from _set_aside(stats.set_aside)


def _set_aside(pages: dict[str, str]) -> Iterator[Finding]:
    for name, reason in list(pages.items())[:SHOWN]:
        yield note(Area.STORE, "page set aside", f"{name}: {reason}", "mos-pipeline retry, once the cause is mended")


def _aside_of(folder: StoreFolder, manifest: Manifest) -> dict[str, str]:
    """Return the pages of a store that nobody has open which were set aside, by number, with the reason."""
    aside, reader = dict[str, str](), SegmentReader(folder)
    try:
        for number in manifest.segments:
            for item in reader.scan(number, (FrameKind.ASIDE,)):
                if isinstance(item, Frame) and item.kind == FrameKind.ASIDE:
                    seq, reason = decode_aside(item.body)
                    aside[f"page number {seq}"] = reason
    except StoreError:
        pass  # told as damage
    finally:
        reader.close()
    return {name: reason for name, reason in aside.items() if reason}
