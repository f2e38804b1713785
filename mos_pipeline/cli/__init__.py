"""The command line: ``mos-pipeline ingest | query | stats | verify | export``.

app.py       the parser, and the edge where errors become exit codes
exits.py     every exit code                    signals.py   Ctrl-C and SIGTERM
opening.py   opening stores                     output.py    tables, JSON, stderr
progress.py  the bar, or lines                  one more file per command
"""

from mos_pipeline.cli.app import main

__all__ = ["main"]
