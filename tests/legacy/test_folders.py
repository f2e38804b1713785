"""Data folders that are none of the plain ones: ids with slashes, links, folders that can't be read."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from mos_pipeline.errors import InputError
from mos_pipeline.legacy.folder import SHORT, LegacyFolder
from mos_pipeline.legacy.writing import can_be_folder
from tests.legacy.common import long_term, mid_page, mid_term, migrate, put, session, short_page, tom
from tests.support import open_fake

NOBODY = 65534


def test_an_id_with_slashes_is_the_path_that_the_original_made_of_it(tmp_path: Path) -> None:
    for number, user in enumerate(("team", "team/tom", "google|2/ann/x")):
        put(tmp_path / "legacy", f"users/{user}/{SHORT}", [short_page(number)])
        put(tmp_path / "legacy", f"users/{user}/long_term_user.json", long_term(user, f"{user} likes tea very much."))
    put(tmp_path / "legacy", "assistants/org/mia/long_term_assistant.json", long_term())
    folder = LegacyFolder(tmp_path / "legacy")
    assert (folder.users, folder.assistants) == (["google|2/ann/x", "team", "team/tom"], ["org/mia"])
    report = migrate(tmp_path / "legacy", tmp_path / "store", assistant="org/mia")
    assert (report.users, report.profiles, report.set_aside) == (3, 3, [])
    with open_fake(tmp_path / "store", workers=False) as memory:
        for number, user in enumerate(("team", "team/tom", "google|2/ann/x")):
            (page,) = memory.pages(user, assistant_id="org/mia")
            assert page.user_input == short_page(number)["user_input"]


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    legacy, elsewhere = tmp_path / "legacy", tmp_path / "elsewhere"
    put(elsewhere, f"disk/{SHORT}", [short_page(1)])
    file = put(elsewhere, "other name.json", [short_page(2)])
    (legacy / "users" / "ann").mkdir(parents=True)
    (legacy / "users" / "tom").symlink_to(elsewhere / "disk")
    (legacy / "users" / "ann" / SHORT).symlink_to(file)
    (legacy / "users" / "circle").symlink_to(legacy / "users")
    (legacy / "users" / "ann" / "circle").symlink_to(legacy)
    folder = LegacyFolder(legacy)
    assert (folder.users, folder.problems) == (["ann", "tom"], [])
    assert [folder.load("users", user, SHORT)[1] for user in ("tom", "ann")] == [[short_page(1)], [short_page(2)]]


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    legacy = tom(tmp_path / "legacy")
    (legacy / "users" / "gone").symlink_to(tmp_path / "no such disk")
    (legacy / "users" / "ann").mkdir()
    (legacy / "users" / "ann" / SHORT).symlink_to("nothing")
    report = migrate(legacy, tmp_path / "store")
    named = {problem.file: problem.reason for problem in report.set_aside}
    reason = "can't be read (No such file or directory)"
    assert named == {"users/gone": reason, f"users/ann/{SHORT}": reason}


def listed_by_nobody(legacy: Path) -> list[object]:
    """Return what a process without any rights finds in a folder."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setuid(NOBODY)
            try:
                folder = LegacyFolder(legacy)
                told: object = [folder.users, list(map(str, folder.problems))]
            except InputError as error:
                told = [str(error)]
            os.write(write, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        told_text = answer.read()
    os.waitpid(child, 0)
    found: list[object] = json.loads(told_text)
    return found


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_folders_that_may_not_be_read_are_named() -> None:
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        legacy = tom(Path(root) / "legacy")
        put(legacy, f"users/ann/{SHORT}", [short_page(1)])
        (legacy / "users" / "ann").chmod(0)
        try:
            assert listed_by_nobody(legacy) == [["tom"], ["users/ann: can't be read (Permission denied)"]]
            (legacy / "users" / "tom").chmod(0)
            (legacy / "assistants").rename(Path(root) / "assistants")
            (told,) = listed_by_nobody(legacy)
            assert str(told).startswith(f"{legacy}: users/ann: can't be read (Permission denied)")
        finally:
            for user in ("ann", "tom"):
                (legacy / "users" / user).chmod(0o755)


@pytest.mark.parametrize(
    ("user", "can"),
    [
        ("tom", True),
        ("team/tom", True),
        ("ünï 😀\n", True),
        ("-", True),
        ("x" * 255, True),
        ("x" * 256, False),
        (f"a/{'x' * 256}", False),
        ("/".join(["x" * 200] * 30), False),
        ("", False),
        (".", False),
        ("..", False),
        ("../tom", False),
        ("a/../tom", False),
        ("/etc", False),
        ("a//b", False),
        ("a/", False),
        ("./a", False),
        ("a\0", False),
        ("\ud800", False),
        ("short_term.json", True),
        ("a/short_term.json", False),
        ("a/mid_term.json.gz/b", False),
        ("long_term_assistant.json/b", False),
    ],
)
def test_which_ids_can_be_folders(user: str, can: bool) -> None:
    assert can_be_folder(user) is can


def test_numbers_of_any_size_make_no_vector_and_no_warning(tmp_path: Path) -> None:
    pages = [mid_page(0, page_embedding=[1e308] * 384), mid_page(1, page_embedding=[0.1] * 100_000)]
    put(tmp_path / "legacy", "users/tom/mid_term.json", mid_term(session("s", pages)))
    report = migrate(tmp_path / "legacy", tmp_path / "store")
    assert (report.made, report.reused, report.set_aside) == (2, 1, [])
