"""The commands of `tiphys`: read what is asked, call the library, show what it answers. Here alone are typer and rich.

One file a group of commands; each imports the rooms that it needs when it runs, so that `tiphys --help` stays quick.
Results go to stdout, everything said on the way to stderr; with `--json` stdout holds one JSON object.
"""

from __future__ import annotations

from tiphys.cli.leave import main, outcome

__all__ = ["main", "outcome"]
