"""For tests, the library's and those of its users: an OpenAI-compatible server that does what a script tells it to.

    with FakeOpenAI() as fake:
        fake.script.add(replies.status(429, retry_after=1), times=2, task="topics")
        with MemoryPipeline.open(path, llm__provider="openai", llm__base_url=fake.base_url) as memory:
            ...
        assert fake.calls == …

The embedder's counterpart is the setting ``embedding.backend: fake``.
"""

from mos_pipeline.testing import replies
from mos_pipeline.testing.fake_openai import FakeOpenAI
from mos_pipeline.testing.replies import Reply
from mos_pipeline.testing.script import Request, Script

__all__ = ["FakeOpenAI", "Reply", "Request", "Script", "replies"]
