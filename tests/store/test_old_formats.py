"""Stores that earlier versions wrote are read by this one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mos_pipeline.messages import decode_record
from mos_pipeline.store.codec import FrameKind, unpack_pages
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import FORMAT, Manifest
from mos_pipeline.store.recovery import open_store
from mos_pipeline.store.segment_writer import SegmentWriter
from mos_pipeline.store.verify import verify_store
from tests.store.common import CONFIG, REPO
from tests.support import unpack


@pytest.fixture
def root(tmp_path: Path) -> Path:
    unpack(REPO / "tests/data/store-format-1.tar.gz", tmp_path / "store")
    return tmp_path / "store"


def test_store_of_format_1_has_all_its_pages(root: Path) -> None:
    report = verify_store(root)
    assert (report.ok, report.forgotten) == (True, 0)
    with open_store(root, CONFIG) as store:
        SegmentWriter(store.folder, 1 << 20, 3).close()
        kinds, bodies = Counter[FrameKind](), dict[int, bytes]()
        for frame in store.frames():
            kinds[frame.kind] += 1
            if frame.kind == FrameKind.PAGES:
                first, heads, records = unpack_pages(frame.body)
                bodies.update(enumerate(records, first))
                assert heads.forgotten == []
        bodies.update((page.seq, page.body) for page in store.journaled_pages())
        assert store.damage == []
    assert sorted(bodies) == list(range(report.pages))
    assert all(decode_record(body).user_input for body in bodies.values())
    assert {kind.name.lower(): count for kind, count in kinds.items()} == report.frames


def test_format_is_raised_by_the_first_owner_so_that_older_versions_keep_away(root: Path) -> None:
    folder = StoreFolder(root)
    old = Manifest.load(folder)
    assert old.format == 1
    open_store(root, CONFIG).close()
    assert Manifest.load(folder) == old.upgraded()
    assert FORMAT > 1
