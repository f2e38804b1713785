"""Asking for what is owed to be repaid now. In the caller's thread."""

from __future__ import annotations

from collections.abc import Callable

from mos_pipeline.engine.coordinator import Coordinator
from mos_pipeline.engine.repaying import Repaying
from mos_pipeline.errors import ClosedError, DeadlineError
from mos_pipeline.memory.state import Scope
from mos_pipeline.messages import Repaid

__all__ = ["Settling"]


class Settling:
    """Has a round made, and waits for it."""

    def __init__(
        self, coordinator: Coordinator, repaying: Repaying, post: Callable[[Callable[[], None]], None]
    ) -> None:
        """``post`` puts a call into the coordinator's inbox."""
        self._coordinator = coordinator
        self._repaying = repaying
        self._post = post

    def repay(self, user_id: str | None, assistant_id: str | None, timeout: float | None) -> Repaid:
        """Have a model asked again for what is owed of a user's pages with an assistant; of all, where None.

        Raises:
            DeadlineError: it is not done in time; it goes on.
            MosError: nobody can work on it any more.
        """

        def wanted(scope: Scope) -> bool:
            return user_id in {None, scope.user_id} and assistant_id in {None, scope.assistant_id}

        def begin() -> None:
            self._repaying.request(waiter)
            if self._coordinator.error is not None:
                self._repaying.fail(self._coordinator.error)

        waiter = self._repaying.new_waiter(wanted)
        self._post(begin)
        if self._coordinator.ended:  # nobody takes it any more
            raise ClosedError("repay: the pipeline was closed meanwhile; open the store again")
        if not waiter.event.wait(timeout):
            self._post(lambda: self._repaying.give_up(waiter))
            raise DeadlineError(f"repay: not everything was asked for within {timeout} s; it goes on")
        if waiter.error is not None:
            raise waiter.error
        return waiter.result or Repaid(0, 0)
