"""What people read of a run: one HTML file that needs nothing else, and decisions told as arithmetic (`explain`).

`write_report` reads a run folder and writes `report.html` into it. Only `plots.py` imports matplotlib, and only when a
report is written. Nothing here decides or plays anything.
"""

from __future__ import annotations

from pathlib import Path


def write_report(folder: Path) -> Path:
    """Write `report.html` of a run folder (again) and say where it is. Raises InputError when there is no verdict."""
    from tiphys.documents import write_atomically
    from tiphys.report.evidence import read_evidence
    from tiphys.report.page import page

    path = folder / "report.html"
    write_atomically(path, page(read_evidence(folder)))
    return path


__all__ = ["write_report"]
