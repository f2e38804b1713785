"""Data folders that the original wrote, of which MOS_LEGACY names one or more (separated by colons)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mos_pipeline.legacy.folder import LegacyFolder
from mos_pipeline.legacy.history import history_of
from mos_pipeline.legacy.model import Problem
from mos_pipeline.legacy.parsing import parse_user
from tests.legacy.common import migrate
from tests.support import open_fake

FOLDERS = [Path(name) for name in os.environ.get("MOS_LEGACY", "").split(":") if name]


@pytest.mark.skipif(not FOLDERS, reason="MOS_LEGACY names no data folder")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_folder_that_the_original_wrote_is_taken_over_whole(folder: Path, tmp_path: Path) -> None:
    legacy = LegacyFolder(folder)
    assistant = legacy.assistants[0] if legacy.assistants else "default_assistant_profile"
    report = migrate(folder, tmp_path / "store", assistant=assistant)
    assert report.set_aside == []
    assert (
        report.made == report.pages_mid + report.sessions + report.facts_user + report.facts_assistant - report.repeated
    )
    with open_fake(tmp_path / "store", workers=False) as memory:
        for user_id in legacy.users:
            problems: list[Problem] = []
            history = history_of(parse_user(legacy, user_id, problems), problems)
            pages = memory.pages(user_id, assistant_id=assistant, limit=100_000)
            assert [(page.user_input, page.agent_response, page.timestamp) for page in pages] == [
                one.page.content for one in history.pages
            ]
            sessions = memory.sessions(user_id, assistant_id=assistant, limit=100_000)
            assert sorted(one.summary for one in sessions) == sorted(one.session.summary for one in history.sessions)
            assert memory.profile(user_id, assistant_id=assistant).text == history.user.profile.strip()
