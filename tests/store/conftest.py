from tests.store.common import descriptors_closed

__all__ = ["descriptors_closed"]
