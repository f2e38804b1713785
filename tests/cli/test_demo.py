from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from tests.cli.common import REPO, environment, exported


def test_the_demonstration_runs_twice(tmp_path: Path) -> None:
    for accepted in (200, 0):
        done = subprocess.run(
            [sys.executable, REPO / "examples" / "demo.py", "--store", tmp_path / "memory"],
            env=environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert re.search(rf"^accepted +{accepted}$", done.stdout, re.MULTILINE)
        first, ten = re.findall(
            r"^Evidence within the first +\d+ pages: (\d+) of 16 questions$", done.stdout, re.MULTILINE
        )
        assert 0 < int(first) <= int(ten) <= 16
        assert 0 < done.stdout.count("<- evidence") <= 48
        for user in ("mira", "jonas"):
            known = done.stdout.split(f"What the memory knows of {user}\n")[1].split("\n\n")[0].splitlines()
            headings = [known.index(heading) for heading in ("  topics, hottest first", "  profile", "  latest facts")]
            assert all(after - before > 1 for before, after in pairwise([*headings, len(known)]))
        assert done.stdout.count("\n     known     ") == 16
        assert str(tmp_path / "memory") in done.stdout
    assert len(exported(tmp_path / "memory")) == 200
