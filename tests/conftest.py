"""Every test proves that it cleaned up; and none fails because the machine is busy."""

from hypothesis import HealthCheck, settings

from tests.leftovers import nothing_left, nothing_left_by_module

__all__ = ["nothing_left", "nothing_left_by_module"]

# By itself hypothesis fails an example that takes 0.2 s, and a test whose examples take long to make.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
