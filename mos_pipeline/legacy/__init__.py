"""Data folders of the original MemoryOS: what they hold, read from them and written to them. Pure but for the files.

    folder ─ folder ─▶ JSON ─ parsing ─▶ model ─ history ─▶ pages in order, sessions, links ─ taking ─▶ Takeover
    StoredMemory ─ writing ─▶ folder

What can't be taken is a ``Problem`` that names the file and the field; everything else goes on.
"""
