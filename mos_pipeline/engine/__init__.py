"""The main process's part: accepting, giving out work, applying results, keeping, finding.

intake ──▶ coordinator ──▶ processing ──▶ (embedder, LLM pool)
                │  ▲            │
                │  └─ outcomes ─┤
                └──▶ persistence ──▶ (writer)
retrieval reads what the coordinator keeps; restore fills it when a store is opened.
"""
