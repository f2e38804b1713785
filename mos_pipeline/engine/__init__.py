"""The main process's part: accepting, giving out work, applying results, keeping, finding.

intake ──▶ coordinator ──▶ processing ─▶ batches ─▶ promotion ──▶ (embedder, LLM pool)
removal       │  │  ▲            │           │           │
              │  │  └─ outcomes ─┴───────────┴───────────┤
              │  └──▶ forgetting                         ▼
              └──▶ compaction ──▶ persistence ◀─────── derived ──▶ (writer)
retrieval and browsing read what the coordinator keeps, visits tell it what was found; restore (pages), replay (derived
data) and retelling (events) fill it when a store is opened.
"""
