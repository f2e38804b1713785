"""The tasks as prompts: by a plan of few calls, or of MemoryOS's own many."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain

from mos_pipeline import config
from mos_pipeline.stages import answers, prompts
from mos_pipeline.stages.caller import Caller
from mos_pipeline.stages.parts import joined_facts, joined_topics
from mos_pipeline.stages.portions import Portions
from mos_pipeline.stages.tasks import Batch, Continuity, Knowledge, PageText, Previous, Topic

__all__ = ["Asking"]


class Asking:
    """Has a model answer the tasks. Each raises UnansweredError where it doesn't.

    What is too much for one answer is asked in parts.
    """

    def __init__(self, settings: config.Llm, caller: Caller) -> None:
        self._chars = settings.page_chars
        self._caller = caller
        self._plan = {"batched": self._at_once, "per_page": self._page_by_page}[settings.plan]
        self._portions = defaultdict[str, Portions](Portions)

    async def continuity(self, batch: Batch, previous: Previous | None) -> Continuity:
        """Tell which pages continue the page before them, and the overview of the chain after each."""
        return await self._plan(batch, previous)

    async def topics(self, batch: Batch) -> list[Topic]:
        """Split the batch into topics, two at the most for every nine pages begun."""

        async def ask(begin: int, end: int) -> tuple[int, list[Topic]]:
            pages, most = batch.pages[begin:end], prompts.most_topics(end - begin)
            found = await self._caller.ask(
                "topics",
                prompts.ask_topics(pages, self._chars),
                lambda answer, mended: answers.read_topics(answer, pages, most, mended),
            )
            return begin, found

        return joined_topics(await self._portions["topics"].ask(len(batch.pages), ask))

    async def profile(self, profile: str, pages: list[PageText]) -> str:
        """Return the user's profile with what the pages add to it."""

        async def ask(begin: int, end: int) -> None:
            nonlocal profile
            before, part = profile, pages[begin:end]
            profile = await self._caller.ask(
                "profile",
                prompts.ask_profile(before, part, self._chars),
                lambda answer, _: answers.read_profile(answer, before, part),
            )

        await self._portions["profile"].ask(len(pages), ask)
        return profile

    async def knowledge(self, pages: list[PageText]) -> Knowledge:
        """Tell facts about the user, and what the assistant said of itself."""

        async def ask(begin: int, end: int) -> tuple[int, Knowledge]:
            part, most = pages[begin:end], prompts.most_facts(end - begin)
            found = await self._caller.ask(
                "knowledge",
                prompts.ask_knowledge(part, self._chars),
                lambda answer, _: answers.read_knowledge(answer, part, most),
            )
            return begin, found

        return joined_facts(await self._portions["knowledge"].ask(len(pages), ask))

    async def _at_once(self, batch: Batch, previous: Previous | None) -> Continuity:
        async def ask(begin: int, end: int) -> Continuity:
            nonlocal previous
            before, pages = previous, batch.pages[begin:end]
            found = await self._caller.ask(
                "continuity",
                prompts.ask_continuity(pages, before, self._chars),
                lambda answer, mended: answers.read_continuity(answer, pages, before, mended),
            )
            previous = Previous(pages[-1], batch.vectors[end - 1], found.overviews[-1])
            return found

        parts = await self._portions["continuity"].ask(len(batch.pages), ask)
        continues = list(chain.from_iterable(part.continues for part in parts))
        return Continuity(continues, list(chain.from_iterable(part.overviews for part in parts)))

    async def _page_by_page(self, batch: Batch, previous: Previous | None) -> Continuity:
        """Ask two prompts a page, one after the other: each overview builds on the one before."""
        found = Continuity([], [])
        for page, vector in zip(batch.pages, batch.vectors, strict=True):
            goes_on = previous is not None and await self._continues(page, previous)
            so_far = previous.overview if previous is not None and goes_on else ""
            overview = await self._overview(page, so_far)
            found.continues.append(goes_on)
            found.overviews.append(overview)
            previous = Previous(page, vector, overview)
        return found

    async def _continues(self, page: PageText, previous: Previous) -> bool:
        prompt = prompts.ask_continues(page, previous, self._chars)
        return await self._caller.ask("continues", prompt, lambda answer, _: answers.read_continues(answer))

    async def _overview(self, page: PageText, so_far: str) -> str:
        prompt = prompts.ask_overview(page, so_far, self._chars)
        return await self._caller.ask("overview", prompt, lambda answer, _: answers.read_overview(answer, page, so_far))
