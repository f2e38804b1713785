"""Processes: how they start, talk, die and stop; and the memory they share."""
