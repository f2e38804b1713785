"""The original's long-term memory: profile and knowledge."""

from __future__ import annotations

from typing import Any

from mos_pipeline.engine.details import FactDetail
from mos_pipeline.memoryos import shapes
from mos_pipeline.memoryos.parts import Part, Scoped, scopes_told

__all__ = ["LongTermMemory"]


class LongTermMemory(Part):
    """Profile and knowledge; the original had one object for the user's, and one for the assistant's.

    Attributes:
        knowledge_capacity: how many facts there are at the most.
    """

    def __init__(self, scoped: Scoped, *, of_user: bool) -> None:
        self._scoped = scoped
        self._of_user = of_user
        self.knowledge_capacity = scoped.config.long_term.knowledge_capacity

    @property
    def user_profiles(self) -> dict[str, dict[str, Any]]:
        """The user's profile, by the user's id; empty while there is none."""
        if not self._of_user:
            return {}
        scoped = self._scoped
        profile = scoped.pipeline().profile(scoped.user_id, assistant_id=scoped.assistant_id)
        if not profile.text:
            return {}
        return {scoped.user_id: {"data": profile.text, "last_updated": shapes.shown_time(profile.updated)}}

    @property
    def knowledge_base(self) -> list[dict[str, Any]]:
        """Facts about the user, the newest last."""
        return list(map(shapes.fact, self._facts(of_user=True))) if self._of_user else []

    @property
    def assistant_knowledge(self) -> list[dict[str, Any]]:
        """Facts about the assistant, from all its users, the newest last."""
        return [] if self._of_user else list(map(shapes.fact, self._facts(of_user=False)))

    def get_raw_user_profile(self, user_id: str) -> str:
        """Return the profile's text; "None" where there is none."""
        return str(self.user_profiles.get(user_id, {"data": "None"})["data"])

    def get_user_profile_data(self, user_id: str) -> dict[str, Any]:
        """Return the profile as it stands in ``user_profiles``; empty where there is none."""
        return self.user_profiles.get(user_id, {})

    def get_user_knowledge(self) -> list[dict[str, Any]]:
        """Return ``knowledge_base``."""
        return self.knowledge_base

    def get_assistant_knowledge(self) -> list[dict[str, Any]]:
        """Return ``assistant_knowledge``."""
        return self.assistant_knowledge

    def _facts(self, *, of_user: bool) -> list[FactDetail]:
        engine, scope = self._scoped.found()
        if of_user:
            return [] if scope is None else engine.details.facts([scope], of_user=True)
        return engine.details.facts(scopes_told(engine, scope, self._scoped.assistant_id), of_user=False)
