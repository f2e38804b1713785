"""Which known fact says nearly the same as one that was told, by their vectors. Owned by the coordinator."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.memory.facts import Fact
from mos_pipeline.memory.outcomes import Told
from mos_pipeline.memory.state import MemoryState, Scope

__all__ = ["Likeness", "Vector"]

Vector = npt.NDArray[np.float16]


class Likeness:
    """Compares facts."""

    def __init__(self, merge_cosine: float, state: MemoryState, embedding: Embedding) -> None:
        """Take facts for one from a cosine of ``merge_cosine`` on."""
        self._merge_cosine = merge_cosine
        self._state = state
        self._embedding = embedding

    def compared(
        self,
        scope: Scope,
        fact: Told,
        earlier: Sequence[Told],
        vectors: Mapping[str, Vector],
        going: Collection[Fact] = (),
    ) -> Told:
        """Return the fact with the one that says nearly the same, or with a row that holds its vector.

        ``earlier`` are those that were told before it, ``going`` known ones that are about to go.
        """
        vector, owner = vectors[fact.text], scope.fact_rows(of_user=fact.of_user)
        known = self._nearest_known(scope, fact.of_user, owner, vector, going)
        beside = [other.text for other in earlier if other.new and other.of_user == fact.of_user]
        same_as = known or next((text for text in beside if self._same(vectors[text], vector)), "")
        if same_as:
            return fact._replace(same_as=same_as)
        pool = self._embedding.pool
        (row,) = pool.allocate(owner, 1)
        pool.write([row], vector[None])
        return fact._replace(new=True, row=int(row))

    def _same(self, one: Vector, other: Vector) -> bool:
        return float(one.astype(np.float32) @ other.astype(np.float32)) >= self._merge_cosine

    def _nearest_known(self, scope: Scope, of_user: bool, owner: int, vector: Vector, going: Collection[Fact]) -> str:
        tags, cosines = self._embedding.pool.scores(owner, vector)
        for at in np.argsort(-cosines)[: int((cosines >= self._merge_cosine).sum())].tolist():
            holder, fact_id = self._state.fact_of(int(tags[at]))
            known = scope.facts(of_user=of_user).get(fact_id) if holder is scope else None
            if known is not None and known not in going:
                return known.text
        return ""
