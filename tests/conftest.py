"""Every test proves that it cleaned up."""

from tests.leftovers import nothing_left, nothing_left_by_module

__all__ = ["nothing_left", "nothing_left_by_module"]
