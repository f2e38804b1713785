"""Every test proves that it cleaned up."""

from tests.leftovers import nothing_left

__all__ = ["nothing_left"]
