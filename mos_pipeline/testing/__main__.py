"""``python -m mos_pipeline.testing``: the fake server in a process of its own, until its input ends."""

from __future__ import annotations

import argparse
import sys

from mos_pipeline.testing.fake_openai import FakeOpenAI


def main() -> None:
    """Serve; the first line printed is the address for ``llm.base_url``."""
    parser = argparse.ArgumentParser(prog="python -m mos_pipeline.testing", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="before every answer")
    args = parser.parse_args()
    with FakeOpenAI(port=args.port) as fake:
        fake.script.latency_s = args.latency
        sys.stdout.write(f"{fake.base_url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
