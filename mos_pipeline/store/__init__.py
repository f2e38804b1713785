"""The folder on disk: journal, segments, MANIFEST, lock."""
