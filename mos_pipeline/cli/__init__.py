"""The command line: ``mos-pipeline COMMAND``; ``mos-pipeline --help`` lists the commands.

app.py       the parser, and the edge where errors become exit codes
exits.py     every exit code                    signals.py   Ctrl-C, SIGTERM, SIGHUP
opening.py   opening stores, or asking owners   output.py    tables, JSON, stderr
progress.py  the bar, or lines                  scope.py     whose memory, and which part of a list
one more file per command
"""

from mos_pipeline.cli.app import main

__all__ = ["main"]
