from __future__ import annotations

from mos_pipeline.config import Config
from mos_pipeline.engine.holes import Holes
from mos_pipeline.memory.state import MemoryState


def test_lost_pages_are_given_out_once_and_only_neighbours_make_a_batch() -> None:
    state = MemoryState("0" * 16, Config())
    mine, other = state.scope("user", "assistant"), state.scope("other", "assistant")
    for seq in range(24):
        state.pages.append(seq, (mine, other)[seq % 2].number)
    holes = Holes(state.pages, 4)
    assert not holes.of(mine)
    mine.gaps = [0, 2, 8, 10, 12, 14, 16, 22]  # 4 and 6, 18 and 20 have their places
    taken = []
    while holes.of(mine):
        taken.append(holes.take(mine))
    assert taken == [[0, 2], [8, 10, 12, 14], [16], [22]]
    assert not holes.of(other)
