"""The main process's part: accepting, giving out work, applying results, keeping, finding.

intake ──▶ coordinator ──▶ processing ──▶ (embedder, LLM pool)
                │  ▲            │
                │  └─ outcomes ─┤
                └──▶ derived ─▶ persistence ──▶ (writer)
retrieval reads what the coordinator keeps; restore (pages) and replay (derived data) fill it when a store is opened.
"""
