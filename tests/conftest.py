"""Every test proves that it cleaned up; and none fails because the machine is busy."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.leftovers import nothing_left, nothing_left_by_module
from tests.support import environment_kept

__all__ = ["nothing_left", "nothing_left_by_module"]

# By itself hypothesis fails an example that takes 0.2 s, and a test whose examples take long to make.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def kept_environment() -> Iterator[None]:
    """Undo what a backend sets in the environment of its process."""
    with environment_kept():
        yield
